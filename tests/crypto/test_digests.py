from hypothesis import given, strategies as st

from crypto.digests import DIGEST_BYTES, digest

PARTS = st.lists(st.binary(max_size=12), max_size=4)


@given(st.binary(max_size=12), PARTS, st.binary(max_size=12), PARTS)
def test_different_domains_or_pieces_never_share_a_digest(domain, parts, other, others):
    assert len(digest(domain, *parts)) == DIGEST_BYTES
    same = (domain, parts) == (other, others)
    assert (digest(domain, *parts) == digest(other, *others)) == same


def test_bytes_cannot_move_between_pieces():
    assert len({digest(b"d", b"ab"), digest(b"d", b"a", b"b"), digest(b"da", b"b")}) == 3
