"""The measurements of `scripts/bench cni` and `scripts/bench allocation`: plain figures out, no judgement."""

import json
import os
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bed import REFERENCE, Bed, Plugin, plugins

HELD = (0, 1_000, 10_000, 60_000)
PARALLEL = (8, 32)
SAMPLES = 20


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds."""
    ordered = sorted(seconds)
    return {
        "p50_ms": round(statistics.median(ordered) * 1e3, 3),
        "p99_ms": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1e3, 3),
    }


def one_at_a_time(bed: Bed, pair: Sequence[Plugin], rounds: int) -> dict[str, Any]:
    """ADD and DEL in turn, ours and the reference's alternating, so that a slow second of the machine hits both."""
    times: dict[tuple[str, str], list[float]] = {(p.name, verb): [] for p in pair for verb in ("ADD", "DEL")}
    for index in range(rounds + 3):
        for plugin in pair:
            for verb in ("ADD", "DEL"):
                outcome = bed.execute(plugin, verb, f"serial-{index}", bed.pods[0])
                require(plugin, verb, outcome)
                if index >= 3:  # noqa: PLR2004  # the first rounds warm caches up
                    times[plugin.name, verb].append(outcome.seconds)
    return {plugin.name: {verb: percentiles(times[plugin.name, verb]) for verb in ("ADD", "DEL")} for plugin in pair}


def in_parallel(bed: Bed, pair: Sequence[Plugin], width: int, pods: int) -> dict[str, Any]:
    """Operations a second with `width` runtimes at once, each on pods of its own."""
    figures: dict[str, Any] = {}
    for plugin in pair:
        figures[plugin.name] = {}
        for verb in ("ADD", "DEL"):
            jobs = [(plugin, verb, f"parallel-{index}", bed.pods[index]) for index in range(pods)]
            figures[plugin.name][verb] = {"per_second": round(len(jobs) / run_parallel(bed, jobs, width), 1)}
    return figures


def run_parallel(bed: Bed, jobs: Sequence[tuple[Plugin, str, str, str]], width: int) -> float:
    """Seconds for all jobs."""
    with ThreadPoolExecutor(width) as executor:
        start = time.perf_counter()
        for job, outcome in zip(jobs, executor.map(lambda job: bed.execute(*job), jobs), strict=True):
            require(job[0], job[1], outcome)
        return time.perf_counter() - start


def footprint(bed: Bed, plugin: Plugin, pods: int) -> dict[str, Any]:
    """What the agent costs with `pods` attached: resident memory, and CPU of each ADD."""
    if bed.agent is None:
        raise RuntimeError("the agent is not running")
    before = _cpu_seconds(bed.agent.pid)
    run_parallel(bed, [(plugin, "ADD", f"held-{index}", bed.pods[index]) for index in range(pods)], 8)
    spent = _cpu_seconds(bed.agent.pid) - before
    status = Path(f"/proc/{bed.agent.pid}/status").read_text()
    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    run_parallel(bed, [(plugin, "DEL", f"held-{index}", bed.pods[index]) for index in range(pods)], 8)
    return {"pods": pods, "rss_mib": round(resident / 1024, 1), "cpu_ms_per_add": round(spent / pods * 1e3, 2)}


def allocation(bed: Bed) -> list[dict[str, Any]]:
    """The cost of one address with many held, both as delegated IPAM plugins: process start to answer."""
    rows = []
    for held in HELD:
        own, reference = _ipam_plugins(bed, held)
        bed.stop_agent()
        _fill_ledger(bed, held)
        _fill_host_local(bed, held)
        bed.start_agent()
        row: dict[str, Any] = {"held": held}
        times: dict[str, list[float]] = {own.name: [], reference.name: []}
        for index in range(SAMPLES):
            for plugin in (own, reference):
                outcome = bed.execute(plugin, "ADD", f"probe-{held}-{index}", bed.pods[0])
                require(plugin, "ADD", outcome)
                times[plugin.name].append(outcome.seconds)
                require(plugin, "DEL", bed.execute(plugin, "DEL", f"probe-{held}-{index}", bed.pods[0]))
        for name, values in times.items():
            row[name] = percentiles(values)
        rows.append(row)
    return rows


def require(plugin: Plugin, verb: str, outcome: Any) -> None:  # noqa: ANN401
    """A failing call would make every figure meaningless."""
    if outcome.status != 0:
        sys.exit(f"{plugin.name} {verb} failed: {outcome.stdout.decode('utf-8', 'replace')}")


def _ipam_plugins(bed: Bed, held: int) -> tuple[Plugin, Plugin]:
    def conf(ipam: dict[str, Any]) -> bytes:
        return json.dumps({"cniVersion": "1.0.0", "name": f"held{held}", "type": "bridge", "ipam": ipam}).encode()

    subnet = "10.96.0.0/15"
    return (
        Plugin(name="underlay-ipam", program=bed.directory / "bin/underlay-ipam", conf=conf({"type": "underlay-ipam", "subnet": subnet})),
        Plugin(name="host-local", program=REFERENCE / "host-local",
               conf=conf({"type": "host-local", "subnet": subnet, "dataDir": str(bed.directory / "held")})),
    )


def _addresses(count: int) -> list[str]:
    return [f"10.96.{index >> 8}.{index & 255}" for index in range(2, count + 2)]


def _fill_host_local(bed: Bed, held: int) -> None:
    directory = bed.directory / "held" / f"held{held}"
    directory.mkdir(parents=True)
    for index, address in enumerate(_addresses(held)):
        (directory / address).write_text(f"filler-{index}\r\neth0")
    if held:
        (directory / "last_reserved_ip.0").write_text(_addresses(held)[-1])


def _fill_ledger(bed: Bed, held: int) -> None:
    """Leases written with the ledger's own API, one transaction each, as an agent would have made them."""
    fill: Callable[[Path, str, int], None]
    from filler import fill  # noqa: PLC0415  # kept apart: it imports the store

    fill(bed.directory / "state" / "ledger.db", f"held{held}", held)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def versions() -> dict[str, str]:
    """What was measured on what."""
    return {"kernel": os.uname().release, "python": sys.version.split()[0], "sqlite": sqlite3.sqlite_version}
