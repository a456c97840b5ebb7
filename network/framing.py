"""Frames: how payloads follow one another in a stream of bytes. No I/O.

A frame is one MessagePack `bin` object with the shortest header that fits; its content is the
payload, at least one byte. Anything else is an error, after which the decoder is dead: a stream
that has lost its frames has no safe place to go on.

`msgpack.Unpacker` reads the same frames, but checks its limits only once an object is complete, and
does not tell one header from another. Here a header alone is enough to refuse a frame.
"""

MAX_HEADER_BYTES = 5

FRAME_TOO_LARGE = "frame-too-large"
FRAME_EMPTY = "frame-empty"
FRAME_MALFORMED = "frame-malformed"
FRAME_TRUNCATED = "frame-truncated"  # the stream has ended inside a frame
FRAME_TIMEOUT = "frame-timeout"  # begun, and not complete in time

_BIN8, _BIN16, _BIN32 = 0xC4, 0xC5, 0xC6
_HEADER_BYTES = {_BIN8: 2, _BIN16: 3, _BIN32: 5}
_LEAST_LENGTH = {_BIN8: 0, _BIN16: 1 << 8, _BIN32: 1 << 16}


class FramingError(Exception):
    """The stream is not one of frames within the limit; `reason` is one of the names above."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def frame_header(length: int) -> bytes:
    """The shortest `bin` header for a payload of `length` bytes (1..2^32-1)."""
    if length < 1 << 8:
        return bytes((_BIN8, length))
    if length < 1 << 16:
        return b"\xc5" + length.to_bytes(2, "big")
    return b"\xc6" + length.to_bytes(4, "big")


def encode_frame(payload: bytes) -> bytes:
    """The frame that carries `payload`."""
    return frame_header(len(payload)) + payload


class FrameDecoder:
    """Turns received bytes into payloads.

    `max_frame_bytes` bounds a payload and may be changed between frames: a peer that has not yet
    authenticated gets less room. What is buffered is at most one frame and what was fed behind it.
    """

    def __init__(self, max_frame_bytes: int) -> None:
        self.max_frame_bytes = max_frame_bytes
        self._buffer = bytearray()
        self._start = 0  # of the first frame not yet handed out
        self._error: FramingError | None = None

    def feed(self, data: bytes) -> None:
        """Add received bytes; ask `next_frame` for what they complete."""
        if self._error is not None:
            return
        if self._start:
            del self._buffer[: self._start]
            self._start = 0
        self._buffer += data

    @property
    def unfinished(self) -> bool:
        """Whether bytes wait that `next_frame` has not handed out."""
        return len(self._buffer) > self._start

    def next_frame(self) -> bytes | None:
        """The payload of the next complete frame, or None. Raises FramingError, then for ever."""
        if self._error is not None:
            raise self._error
        try:
            return self._take()
        except FramingError as error:
            self._error = error
            self._buffer.clear()
            raise

    def _take(self) -> bytes | None:
        buffer, start = self._buffer, self._start
        if start == len(buffer):
            return None
        first = start + self._header_bytes(buffer[start])
        if first > len(buffer):
            return None
        length = int.from_bytes(buffer[start + 1 : first], "big")
        self._check(buffer[start], length)
        end = first + length
        if end > len(buffer):
            return None
        self._start = end
        return bytes(memoryview(buffer)[first:end])

    def _header_bytes(self, kind: int) -> int:
        size = _HEADER_BYTES.get(kind)
        if size is None:
            raise FramingError(FRAME_MALFORMED)
        return size

    def _check(self, kind: int, length: int) -> None:
        if length > self.max_frame_bytes:
            raise FramingError(FRAME_TOO_LARGE)
        if length == 0:
            raise FramingError(FRAME_EMPTY)
        if length < _LEAST_LENGTH[kind]:
            raise FramingError(FRAME_MALFORMED)
