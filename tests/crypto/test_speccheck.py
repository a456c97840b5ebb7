"""The twelve public vectors of the Ed25519 speccheck: nobody is admitted who could sign them.

Chalkias, Garillot, Nikolaenko, "Taming the many EdDSAs" (SSR 2020). `speccheck_cases.json` is
`cases.json` of github.com/novifinancial/ed25519-speccheck (Apache-2.0). The vectors are signatures
over bare messages, so they are checked with the primitive that `Ed25519Verifier` puts its domain
before; `test_signing.py` shows the same twelve conditions with the domain.
"""

import json
from pathlib import Path

import pytest
from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from crypto.signing import InvalidKey, check_public_key

CASES = [
    {name: bytes.fromhex(value) for name, value in case.items()}
    for case in json.loads((Path(__file__).parent / "speccheck_cases.json").read_text())
]


def admitted(key: bytes) -> bool:
    try:
        check_public_key(key)
    except InvalidKey:
        return False
    return True


def verifies(case: dict[str, bytes]) -> bool:
    try:
        crypto_sign_open(case["signature"] + case["message"], case["pub_key"])
    except BadSignatureError:
        return False
    return True


def test_there_are_twelve() -> None:
    assert len(CASES) == 12


@pytest.mark.parametrize("number", range(12))
def test_a_case_is_refused(number: int) -> None:
    case = CASES[number]
    assert not (admitted(case["pub_key"]) and verifies(case))
