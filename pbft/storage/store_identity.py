"""Whose data this is: a record in each environment, checked before anything else is read."""

from typing import Any

import msgspec
from msgspec import Struct

from pbft.storage.database import CorruptRecord, Database, reading, writing
from pbft.storage.directory_lock import UnusableDirectory

FORMAT = 4
"""Of all that is in the directory. Where the identity is and how it begins is the same for ever."""
IDENTITY_TABLE = "meta"
IDENTITY_KEY = b"identity"


UPGRADE = "run the version that wrote it, and see Upgrading in docs/operations.md"


class WrongDirectory(UnusableDirectory):
    """The data belongs to another cluster or to another replica."""


class WrongFormat(UnusableDirectory):
    """The data was written by a version of the program that this one does not understand."""


def write_identity(database: Database, cluster_id: bytes, replica: int) -> None:
    """Mark an empty environment as this replica's, durably. Raises StorageFailure."""
    record = msgspec.msgpack.encode((FORMAT, cluster_id, replica))
    with writing(database) as transaction:
        transaction.put(IDENTITY_TABLE, IDENTITY_KEY, record)


def has_identity(database: Database, where: str, cluster_id: bytes, replica: int) -> bool:
    """Whether the environment is marked as this replica's; false where it has no mark at all.

    Raises WrongDirectory, WrongFormat, StorageFailure.
    """
    with reading(database) as snapshot:
        record = snapshot.get(IDENTITY_TABLE, IDENTITY_KEY)
    if record is None:
        return False
    check_identity(record, where, cluster_id, replica)
    return True


def format_of(record: bytes) -> Any:
    """What the identity `record` says of the format. Raises CorruptRecord."""
    identity = _decode(record)
    return identity[0] if identity else None


class Identity(Struct, frozen=True):
    """Whose data it is; `cluster` and `replica` only where the format is known."""

    format: int | None
    cluster: str | None = None  # hexadecimal
    replica: int | None = None


def show_identity(record: bytes) -> Identity:
    """What an identity record says. Raises CorruptRecord."""
    match _decode(record):
        case [int(number), bytes(cluster), int(replica)] if number == FORMAT:
            return Identity(number, cluster.hex(), replica)
        case [int(number), *_]:
            return Identity(number)
    return Identity(None)


def _decode(record: bytes) -> list[Any]:
    try:
        return msgspec.msgpack.decode(record, type=list[Any])
    except msgspec.DecodeError:
        raise CorruptRecord("the identity record is not readable") from None


def check_identity(record: bytes, where: str, cluster_id: bytes, replica: int) -> None:
    """Raises WrongDirectory, WrongFormat, CorruptRecord."""
    identity = _decode(record)
    # The format comes first and decides what the rest means.
    found = identity[0] if identity else None
    if found != FORMAT:
        newer = isinstance(found, int) and found > FORMAT
        advice = "install the newer version that wrote it" if newer else UPGRADE
        raise WrongFormat(
            f"{where} has data of format {found}; this version of pbft reads format {FORMAT}: "
            f"{advice}"
        )
    if len(identity) != 3:
        raise CorruptRecord("the identity record is not readable")
    _, found_cluster, found_replica = identity
    if found_cluster != cluster_id:
        raise WrongDirectory(f"{where} holds the data of another cluster: choose another folder")
    if found_replica != replica:
        raise WrongDirectory(
            f"{where} holds the data of replica {found_replica}, not of replica {replica}: "
            "each has a folder of its own"
        )
