"""What the state says of one key of the key-value store, for whoever can look up its records."""

from collections.abc import Callable

import msgspec

from pbft.apps.kv_codec import KeyValue
from pbft.apps.kv_layout import decode_entry, entry_key, value_key

Lookup = Callable[[bytes], bytes | None]
"""The value under a key of the application's map, or None."""


class NotKeyValueState(Exception):
    """These records are not those of a key-value store."""


def first_record(key: bytes) -> bytes:
    """The key, in the application's map, of the record where `newest` begins."""
    return entry_key(key)


def newest(lookup: Lookup, key: bytes) -> KeyValue | None:
    """The value of `key` with its revisions, None where it is not there (never, or not any more).

    Raises NotKeyValueState, and what `lookup` raises.
    """
    try:
        return _newest(lookup, key)
    except msgspec.DecodeError:
        raise NotKeyValueState("the state is not that of a key-value store") from None


def _newest(lookup: Lookup, key: bytes) -> KeyValue | None:
    raw = lookup(entry_key(key))
    held = None if raw is None else decode_entry(raw).held
    if held is None:
        return None
    value = lookup(value_key(held.apart)) if held.apart else held.value
    if value is None:
        raise NotKeyValueState("the state is not that of a key-value store")
    return KeyValue(key, value, held.create, held.mod, held.version, held.lease)
