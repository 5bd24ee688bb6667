"""JSON lines on standard error, one for each request, with the runtime's trace context where it sent one."""

import json
import logging
import time
from typing import Any

LOGGER = logging.getLogger("underlayd")
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC, milliseconds), level, message, then the record's extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "msg": record.getMessage(),
        }
        line.update((key, value) for key, value in record.__dict__.items() if key not in _STANDARD and value != "")
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, separators=(",", ":")).encode("utf-8", "replace").decode()


def configure(level: str) -> None:
    """Send everything of this process to standard error as JSON lines. Called once, at start."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # A log line's caller, thread and process cost 3 us each and say nothing here.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
