"""kill -9 in the middle of everything, again and again on one ledger: what was promised holds, and nothing is twice."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

from cni_underlay.store.sqlite import SQLiteStore

HAMMER = Path(__file__).with_name("hammer.py")
KILLS = 20
Clock = Any


@dataclass
class Promises:
    """What the killed program was told: leases it got, releases that came back, releases that were only asked for."""

    leased: dict[int, tuple[str, str]] = field(default_factory=dict)
    asked: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)

    def hear(self, line: str) -> None:
        kind, _, rest = line.partition(" ")
        if kind == "+":
            generation, ip, mac = rest.split()
            self.leased[int(generation)] = (ip, mac)
        elif kind == "?" and rest:
            self.asked.add(int(rest))
        elif kind == "-" and rest:
            self.ended.add(int(rest))

    @property
    def standing(self) -> dict[int, tuple[str, str]]:
        return {generation: lease for generation, lease in self.leased.items() if generation not in self.asked}


@contextmanager
def hammering(path: Path, boot_id: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(HAMMER), str(path), boot_id],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def heard(stream: IO[str] | None, promises: Promises) -> None:
    """All complete lines: a line is one write, so that the kill cannot tear it."""
    assert stream is not None
    for line in stream.read().splitlines():
        promises.hear(line)


@pytest.mark.timeout(240)
def test_no_kill_breaks_a_promise(ledger_path: Path, clock: Clock) -> None:
    generator, promises, boot_id = random.Random(20), Promises(), clock.boot_id
    for turn in range(KILLS):
        with hammering(ledger_path, boot_id) as process:
            assert process.stdout is not None
            # The moment is what is random here, not something to wait for: now after the opening, now anywhere in it.
            if turn % 3:
                assert process.stdout.readline() == "open\n"
                time.sleep(generator.uniform(0.0, 0.12))
            else:
                time.sleep(generator.uniform(0.1, 0.5))
            process.send_signal(signal.SIGKILL)
            heard(process.stdout, promises)
        store = SQLiteStore(ledger_path, clock())
        try:
            assert store.damage is None
            check(store, promises, ledger_path)
        finally:
            store.close()
        if turn % 5 == 4:
            boot_id = clock.reboot().boot_id
    assert len(promises.leased) > KILLS * 5
    assert promises.ended


def check(store: SQLiteStore, promises: Promises, path: Path) -> None:
    found = {lease.generation: lease for lease in store.leases()}
    for generation, (ip, mac) in promises.standing.items():
        assert generation in found, "an answered ADD is lost"
        assert (str(found[generation].addresses[0].interface.ip), found[generation].claim.mac) == (ip, mac)
    assert not promises.ended & set(found), "an answered DEL is undone"
    # What was asked for and not answered may have happened or not; from here on it is known.
    promises.ended |= {generation for generation in promises.asked if generation not in found}
    for generation in promises.asked & set(found):
        promises.asked.remove(generation)
    held = [address.interface.ip for lease in found.values() for address in lease.addresses]
    assert len(held) == len(set(held)) == len(found), "an address twice, or a lease without one"
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        lost = (
            "SELECT count(*) FROM address WHERE state = 'leased' AND generation NOT IN (SELECT generation FROM lease)"
        )
        assert connection.execute(lost).fetchone() == (0,)
        unwritten = """
            SELECT count(*) FROM address WHERE state = 'leased' AND NOT EXISTS (
                SELECT 1 FROM history WHERE history.generation = address.generation AND what = 'leased')
        """
        assert connection.execute(unwritten).fetchone() == (0,), "a change without its row of history"
