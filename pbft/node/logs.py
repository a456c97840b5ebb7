"""Structured log lines: time, level, event, then key=value pairs (logfmt), on standard error."""

import logging
import sys
from datetime import UTC, datetime

logger = logging.getLogger("pbft")


class Formatter(logging.Formatter):
    """`2026-01-02T03:04:05.678Z info view-entered replica=1 view=2`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; values with spaces are quoted."""
        time = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        fields: dict[str, object] = getattr(record, "fields", {})
        pairs = "".join(f" {key}={_quoted(value)}" for key, value in fields.items())
        return f"{time}Z {record.levelname.lower()} {record.getMessage()}{pairs}"


def _quoted(value: object) -> str:
    text = str(value).replace("\n", " ")
    return '"' + text.replace('"', "'") + '"' if " " in text or not text else text


def configure(level: int = logging.INFO) -> None:
    """Send log lines to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter())
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


def log(event: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Write one line."""
    logger.log(level, event, extra={"fields": fields})
