"""A program that works on a ledger with several threads until it is killed, and says what it was promised.

Run as `python hammer.py LEDGER BOOT_ID`. One line each on standard output, written whole: `+ generation ip mac` after a
lease came back, `? generation` before its release is asked for, `- generation` after it came back.
"""

import os
import sys
import threading
import time
from pathlib import Path

from cni_underlay.errors import PoolExhaustedError
from cni_underlay.ipam.pools import pool_from_mapping
from cni_underlay.records import Attachment, Claim, DatapathKind, Instant
from cni_underlay.store.sqlite import SQLiteStore

POOL = pool_from_mapping({"name": "app", "ranges": [{"subnet": "10.7.0.0/25"}], "quarantine": "500ms", "floor": 0})


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def main() -> None:
    path, boot_id = Path(sys.argv[1]), sys.argv[2]

    def now() -> Instant:
        return Instant(wall=time.time(), uptime=time.clock_gettime(time.CLOCK_BOOTTIME), boot_id=boot_id)

    store = SQLiteStore(path, now())
    say("open")

    def work(number: int) -> None:
        held: list[int] = []
        for turn in range(1_000_000):
            attachment = Attachment(network="net", container_id=f"{os.getpid()}-{number}-{turn}", ifname="eth0")
            try:
                lease = store.acquire(Claim(attachment=attachment, datapath=DatapathKind.VETH), [POOL], [], now())
            except PoolExhaustedError:
                pass
            else:
                say(f"+ {lease.generation} {lease.addresses[0].interface.ip} {lease.claim.mac}")
                held.append(lease.generation)
            if turn % 3:
                store.confirm(held[-1] if held else 0)
            if len(held) > 3 or not turn % 5:
                ending, held = held, []
                say("".join(f"? {generation}\n" for generation in ending).rstrip("\n"))
                store.release(ending, "DEL", now())
                say("".join(f"- {generation}\n" for generation in ending).rstrip("\n"))
            if not turn % 7:
                store.tidy(now())

    for number in range(6):
        threading.Thread(target=work, args=(number,), daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
