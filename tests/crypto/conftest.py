"""Twelve edge-case signatures, one for each condition of the Ed25519 speccheck table.

Chalkias, Garillot, Nikolaenko, "Taming the many EdDSAs" (SSR 2020), list the conditions. The
vectors are built here from the curve itself, over what this project really signs (domain and
message), so that they exercise the verifier as it is used. A point is written
``scalar * B + torsion * T``, where B is the base point, of order L, and T has order 8.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha512
from itertools import count

import pytest

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)
DOMAIN = b"speccheck"

Point = tuple[int, int]


def add(one: Point, two: Point) -> Point:
    product = D * one[0] * two[0] * one[1] * two[1] % P
    inverse = pow((1 + product) * (1 - product), -1, P)
    x = (one[0] * two[1] + one[1] * two[0]) * (1 - product) * inverse
    y = (one[1] * two[1] + one[0] * two[0]) * (1 + product) * inverse
    return x % P, y % P


def multiply(scalar: int, point: Point) -> Point:
    result = (0, 1)
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def point_with(y: int) -> Point | None:
    """The point with this y and an even x, if there is one."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    root = pow(square, (P + 3) // 8, P)
    if root * root % P != square:
        root = root * SQRT_M1 % P
    if root * root % P != square:
        return None
    return (P - root if root & 1 else root), y


def compress(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def _point_of_order_8() -> Point:
    for y in count(2):
        point = point_with(y)
        if point is not None:
            torsion = multiply(L, point)
            if multiply(4, torsion) != (0, 1):
                return torsion
    raise AssertionError


_base = point_with(4 * pow(5, -1, P) % P)
assert _base is not None
B: Point = _base
T: Point = _point_of_order_8()


def combine(scalar: int, torsion: int) -> Point:
    return add(multiply(scalar, B), multiply(torsion % 8, T))


@dataclass(frozen=True)
class Edge:
    """One edge case: which equations hold is what a lax verifier would go by."""

    number: int
    key: bytes
    message: bytes
    signature: bytes
    cofactored: bool
    cofactorless: bool


def _challenge(r: bytes, a: bytes, message: bytes) -> int:
    signed = bytes([len(DOMAIN)]) + DOMAIN + message
    return int.from_bytes(sha512(r + a + signed).digest(), "little") % L


Wanted = Callable[[int, int, int], bool]


def _passes(h: int, a: int, r: int) -> bool:
    return (r + h * a) % 8 == 0


def _cofactored_only(h: int, a: int, r: int) -> bool:
    return not _passes(h, a, r)


def _cofactored_unless_reduced(h: int, a: int, r: int) -> bool:
    return not _passes(h, a, r) and 8 * h % L * a % 8 != 0


def _forge(
    number: int,
    a: tuple[int, int],
    r: tuple[int, int],
    wanted: Wanted = _passes,
    *,
    extra: int = 0,
    sent_key: bytes | None = None,
    sent_r: bytes | None = None,
    hash_as_sent: bool = True,
) -> Edge:
    """Try messages until the torsion parts of A and R do what is `wanted`."""
    key, point_r = compress(combine(*a)), compress(combine(*r))
    sent_key, sent_r = sent_key or key, sent_r or point_r
    hashed_key, hashed_r = (sent_key, sent_r) if hash_as_sent else (key, point_r)
    for attempt in count():
        message = b"edge case %d, attempt %d" % (number, attempt)
        h = _challenge(hashed_r, hashed_key, message)
        if wanted(h, a[1], r[1]):
            s = (r[0] + h * a[0]) % L + extra
            signature = sent_r + s.to_bytes(32, "little")
            return Edge(number, sent_key, message, signature, *_equations(a, r, h, s))
    raise AssertionError


def _equations(a: tuple[int, int], r: tuple[int, int], h: int, s: int) -> tuple[bool, bool]:
    left, right = multiply(s, B), add(combine(*r), multiply(h, combine(*a)))
    return multiply(8, left) == multiply(8, right), left == right


def _of_order_4() -> tuple[tuple[int, int], bytes]:
    """A point with y = 0, and its non-canonical encoding with y = p."""
    point = multiply(2, T)
    return (0, 2), (P | (point[0] & 1) << 255).to_bytes(32, "little")


def _edges() -> Iterator[Edge]:
    secret, nonce = 0x1234567890ABCDEF % L, 0xFEDCBA0987654321 % L
    small, wide = _of_order_4()
    yield _forge(0, (0, 1), (0, 3))
    yield _forge(1, (0, 1), (nonce, 3))
    yield _forge(2, (secret, 1), (0, 3))
    yield _forge(3, (secret, 1), (nonce, 3))
    yield _forge(4, (secret, 1), (nonce, 3), _cofactored_only)
    yield _forge(5, (secret, 1), (nonce, 0), _cofactored_unless_reduced)
    yield _forge(6, (secret, 0), (nonce, 0), extra=L)
    yield _forge(7, (secret, 0), (nonce, 0), extra=14 * L)
    yield _forge(8, (secret, 1), small, sent_r=wide, hash_as_sent=False)
    yield _forge(9, (secret, 1), small, sent_r=wide)
    yield _forge(10, small, (nonce, 2), sent_key=wide, hash_as_sent=False)
    yield _forge(11, small, (nonce, 2), sent_key=wide)


@pytest.fixture(scope="session")
def edges() -> list[Edge]:
    return list(_edges())


@pytest.fixture(scope="session")
def mixed_order_keys() -> list[bytes]:
    """One point of order L, moved by each of the seven other torsion points."""
    return [compress(combine(7, torsion)) for torsion in range(1, 8)]


@pytest.fixture(scope="session")
def mixed_r() -> Edge:
    """A good key's holder adds a small-order point to R: only the cofactored equation holds."""
    return _forge(12, (7, 0), (9, 1), _cofactored_only)


@pytest.fixture(scope="session")
def small_order_keys() -> list[bytes]:
    """All eight points of small order, and their non-canonical encodings that fit 32 bytes."""
    canonical = [compress(multiply(torsion, T)) for torsion in range(8)]
    wide = [(P + y | sign << 255).to_bytes(32, "little") for y in (0, 1) for sign in (0, 1)]
    negative_zero = [(y | 1 << 255).to_bytes(32, "little") for y in (1, P - 1)]
    return canonical + wide + negative_zero
