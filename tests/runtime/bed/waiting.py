"""Waiting for a condition instead of a time."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], complaint: str, seconds: float = 10.0) -> None:
    """Return as soon as the condition holds; raise `TimeoutError` with the complaint when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{complaint} after {seconds:g} s")
        time.sleep(0.02)
