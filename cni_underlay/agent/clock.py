"""The agent's only clock: wall time to show, boot time to decide with."""

import time
from pathlib import Path

from cni_underlay.records import Instant

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Clock:
    """Calls give the present `Instant`. CLOCK_BOOTTIME counts through suspend and cannot be set (clock_gettime(2))."""

    def __init__(self) -> None:
        self._boot_id = _BOOT_ID.read_text("ascii").strip()

    def __call__(self) -> Instant:
        return Instant(wall=time.time(), uptime=time.clock_gettime(time.CLOCK_BOOTTIME), boot_id=self._boot_id)
