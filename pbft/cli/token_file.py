"""A file that carries a client's token from one command to the next: see `client.Client.token`."""

from pathlib import Path

from msgspec import Struct

from pbft.cli.errors import CliError
from pbft.cli.files import whole_file
from pbft.cli.kv_text import MAX_NUMBER

_MAX_BYTES = 200
_MARK = "pbft-token"


class TokenFile(Struct, frozen=True):
    """The token for the cluster with this id, in a line of text: `pbft-token CLUSTER NUMBER`."""

    path: Path
    cluster_id: bytes

    def load(self) -> int:
        """The token, 0 where there is no file yet. Raises CliError for any other file, OSError."""
        if not self.path.exists():
            return 0
        with self.path.open("rb") as file:
            words = file.read(_MAX_BYTES).decode("ascii", "replace").split()
        token = int(words[2]) if len(words) == 3 and words[2].isdecimal() else -1
        if words[:1] != [_MARK] or not 0 <= token <= MAX_NUMBER:
            raise CliError(f"{self.path} is no file that --token has written")
        if words[1] != self.cluster_id.hex():
            raise CliError(f"{self.path} has the token of another cluster: give each its own file")
        return token

    def store(self, token: int) -> None:
        """Replace what is there, unless that is as new. Raises CliError, OSError."""
        if token > self.load():
            with whole_file(self.path) as file:
                file.write(f"{_MARK} {self.cluster_id.hex()} {token}\n".encode())
