"""A data directory's life on a disk that fails, again and again; a process of its own.

Preloaded with `failing_disk.c`. Each line of standard input, [FOLDER, FAIL_AT, FAIL_WITH] as JSON,
is lived in a fork, which has everything imported; the answer is [what was done, how it ended].
"""

import json
import os
import sys
from pathlib import Path

from pbft.storage.data_directory import open_data_directory
from pbft.storage.database import StorageFailure, writing
from pbft.storage.directory_lock import UnusableDirectory
from pbft.storage.state_store import StateStore

CLUSTER, REPLICA = b"c" * 32, 2


def live(data: Path) -> tuple[str, str]:
    done = ""
    try:
        directory = open_data_directory(data, CLUSTER, REPLICA)
        done = "opened"
        store = StateStore(directory.state)
        for seq in range(store.seq + 1, store.seq + 4):
            with writing(directory.log) as transaction:
                transaction.put("slots", b"%d" % seq, bytes(6000))
            done = f"voted {seq}"
            store.begin_batch(seq, seq)
            store.application.put(b"%d" % seq, b"value")
            store.flush()
            done = f"flushed {seq}"
    except (StorageFailure, UnusableDirectory) as error:
        return done, str(error)
    finally:
        if done:
            directory.close()
    return done, ""


def main() -> None:
    for line in sys.stdin:
        data, fail_at, error = json.loads(line)
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.environ |= {"FAIL_AT": str(fail_at), "FAIL_WITH": str(error)}
            try:
                os.write(writer, json.dumps(live(Path(data))).encode())
            finally:
                os._exit(0)
        os.close(writer)
        with open(reader) as answer:
            print(answer.read(), flush=True)
        os.wait()


if __name__ == "__main__":
    main()
