"""What a caller can catch. Everything derives from ClientError."""


class ClientError(Exception):
    """Any failure that the client library reports."""


class LocalError(ClientError):
    """The call was wrong, or a local limit is reached. Nothing was sent."""


class QueueFull(LocalError):
    """Too many operations wait already; try again when some have finished."""


class RemoteError(ClientError):
    """A replica answered with something that no correct replica says."""


class Refused(ClientError):
    """The application refused the operation, alike on every correct replica; it has no effect."""


class ApplicationFailed(ClientError):
    """The application failed on the operation, alike on every correct replica; it has no effect."""


class OutcomeUnknown(ClientError):
    """The operation was sent, and whether it was executed cannot be found out any more.

    Its session was lost, or the client closed, before an outcome was known (R45).
    """


class DeadlineExceeded(ClientError):
    """No outcome within the deadline. `sent` tells whether the operation may still execute."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class NotConnected(DeadlineExceeded):
    """The deadline passed while too few replicas could be reached."""
