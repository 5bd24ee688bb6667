"""JSON lines on standard error, one for each request, with the runtime's trace context where it sent one."""

import json
import logging
import os
import time
from contextlib import suppress
from typing import Any

LOGGER = logging.getLogger("underlayd")
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__)
_NOTHING: tuple[object, ...] = ("", [], None)  # fields with such a value are left out
_SURROGATE = "\\ud"
_STDERR = 2


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC, milliseconds), level, message, then the record's extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "msg": record.getMessage(),
        }
        extra = {key: value for key, value in record.__dict__.items() if key not in _STANDARD}
        line.update((key, value) for key, value in extra.items() if value not in _NOTHING)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        text = _encode(line)
        if _SURROGATE in text:
            # Bytes that are not UTF-8 come as lone surrogates, which strict readers of JSON refuse.
            whole = json.dumps(line, default=str, ensure_ascii=False).encode("utf-8", "replace")
            text = _encode(json.loads(whole))
        return text


def _encode(line: dict[str, Any]) -> str:
    return json.dumps(line, default=str, separators=(",", ":"))  # ASCII: a terminal obeys nothing that stands in it


class _StderrHandler(logging.Handler):
    """Writes one line with one system call, so that lines never mix."""

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record).encode("ascii") + b"\n"
        with suppress(OSError):  # nobody reads the log, and there is no other place to say so
            while line:
                line = line[os.write(_STDERR, line) :]


def configure(level: str) -> None:
    """Send everything of this process to standard error as JSON lines. Called once, at start."""
    handler = _StderrHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # A log line's caller, thread and process cost 3 us each and say nothing here.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
