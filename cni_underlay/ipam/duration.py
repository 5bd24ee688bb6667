"""Durations in configurations: `500ms`, `30s`, `2m`, `1h`, or a number of seconds."""

import re
from math import isfinite

from cni_underlay.cni.grammar import clip
from cni_underlay.errors import InvalidConfigError

_TEXT = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST = 30 * 24 * 3600.0  # an address that rests for longer than a month is a typing mistake


def parse_duration(value: object, where: str) -> float:
    """Seconds. Raises `InvalidConfigError` that starts with `where`."""
    seconds = _seconds(value)
    if seconds is None or not isfinite(seconds) or not 0 <= seconds <= _LONGEST:
        raise InvalidConfigError(
            f"{where}: {clip(repr(value))} is no duration; write for example 500ms, 30s, 2m, 1h, or seconds as a number"
        )
    return seconds


def _seconds(value: object) -> float | None:
    # YAML's true is an int to Python, and a YAML integer may have more digits than a float can hold.
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(min(value, _LONGEST + 1))
    match = _TEXT.fullmatch(value) if isinstance(value, str) else None
    return float(match[1]) * _SECONDS[match[2]] if match else None
