"""A file that carries a client's token from one command to the next: see `client.Client.token`."""

from pathlib import Path

from msgspec import Struct

from pbft.cli.errors import CliError
from pbft.cli.files import whole_file

MAX_TOKEN = 2**63 - 1
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
        if len(words) != 3 or words[0] != _MARK or not words[2].isdecimal():
            raise CliError(f"{self.path} is no file that --token has written")
        if words[1] != self.cluster_id.hex():
            raise CliError(f"{self.path} has the token of another cluster: give each its own file")
        if int(words[2]) > MAX_TOKEN:
            raise CliError(f"{self.path} is no file that --token has written")
        return int(words[2])

    def store(self, token: int) -> None:
        """Replace what is there, unless that is as new. Raises CliError, OSError."""
        if token > self.load():
            with whole_file(self.path) as file:
                file.write(f"{_MARK} {self.cluster_id.hex()} {token}\n".encode())
