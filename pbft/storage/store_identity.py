"""Whose data this is: a record in each environment, checked before anything else is read."""

from typing import Any

import msgspec

from pbft.storage.database import CorruptRecord, Database, reading, writing
from pbft.storage.directory_lock import UnusableDirectory

FORMAT = 2
IDENTITY_TABLE = "meta"
IDENTITY_KEY = b"identity"


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
    _check(_decode(record), where, cluster_id, replica)
    return True


def _decode(record: bytes) -> list[Any]:
    try:
        return msgspec.msgpack.decode(record, type=list[Any])
    except msgspec.DecodeError:
        raise CorruptRecord("the identity record is not readable") from None


def _check(identity: list[Any], where: str, cluster_id: bytes, replica: int) -> None:
    # The format comes first and decides what the rest means.
    if identity[:1] != [FORMAT]:
        found = identity[0] if identity else "none"
        raise WrongFormat(
            f"{where} has data of format {found}; this version of pbft reads format {FORMAT}"
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
