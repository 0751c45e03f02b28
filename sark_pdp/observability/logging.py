"""Logs on the standard library's loggers: one JSON object per line, or text for a terminal.

Callers name what they log about in `extra`; they never pass what a caller sent, tokens, keys or whole settings.
"""

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, TextIO

from pythonjsonlogger.core import RESERVED_ATTRS, LogData
from pythonjsonlogger.msgspec import MsgspecFormatter

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["json", "text"]

_FIELDS = {"asctime": "time", "levelname": "level", "name": "logger", "message": "message"}
_KNOWN = frozenset({*RESERVED_ATTRS, *_FIELDS.values(), "taskName"})
_ESCAPED = {
    code: chr(code).encode("unicode_escape").decode() for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)
}
"""Control characters, and what else ends a line for some."""

_log = logging.getLogger("sark_pdp")


def configure(level: Level, format: Format, stream: TextIO) -> None:  # noqa: A002 (the setting's name)
    """Sends every log of this process to `stream`, also what would end a thread or the process unheard."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_JsonFormatter() if format == "json" else _TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread
    sys.unraisablehook = _log_unraisable


class _JsonFormatter(MsgspecFormatter):
    """`time` (RFC 3339, UTC), `level`, `logger`, `message`, then the extras."""

    def __init__(self) -> None:
        super().__init__(list(_FIELDS), rename_fields=_FIELDS, reserved_attrs=sorted(_KNOWN))

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 (overrides)
        return _time(record)

    def process_log_record(self, log_data: LogData) -> LogData:
        return log_data | {"level": log_data["level"].lower()}

    def jsonify_log_record(self, log_data: LogData) -> str:
        try:
            return super().jsonify_log_record(log_data)
        except (TypeError, ValueError, OverflowError):
            # Half a surrogate pair, a number beyond 64 bits, keys that are no text: what msgspec does not write.
            return json.dumps({str(key): value for key, value in log_data.items()}, default=str, skipkeys=True)


class _TextFormatter(logging.Formatter):
    """`time LEVEL logger: message key=value …`; a traceback follows on lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (overrides)
        extras = {key: value for key, value in vars(record).items() if key not in _KNOWN}
        told = "".join(f" {key}={value!r}" for key, value in extras.items())
        # Escaped, so that a message cannot look like two, or move the cursor.
        message = record.message.translate(_ESCAPED)
        return f"{_time(record)} {record.levelname:<7} {record.name}: {message}{told}"


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    _log.critical("an error ended the process", exc_info=(kind, error, traceback))


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    name = args.thread.name if args.thread else ""
    error = args.exc_value or args.exc_type()
    _log.critical(
        "an error ended a thread", exc_info=(args.exc_type, error, args.exc_traceback), extra={"thread_name": name}
    )


def _log_unraisable(args: Any) -> None:
    _log.error(
        "an error could not be raised: %s",
        args.err_msg or "ignored",
        exc_info=(args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback),
        extra={"source": repr(args.object)},
    )
