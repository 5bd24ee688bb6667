"""The measurements of `scripts/bench cni` and `scripts/bench allocation`: plain figures out, no judgement."""

import os
import sqlite3
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bed as beds
from bed import Agent, Bed, Plugin, own_ipam
from filler import SUBNET, fill

HELD = (0, 1_000, 10_000, 60_000)
PARALLEL = (8, 32)
SAMPLES = 40
WARM_UP = 3
BLOCK = 10


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds."""
    ordered = sorted(seconds)
    return {
        "p50_ms": round(statistics.median(ordered) * 1e3, 3),
        "p99_ms": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1e3, 3),
    }


def one_at_a_time(bed: Bed, pair: Sequence[Plugin], rounds: int) -> dict[str, Any]:
    """ADD and DEL one after the other, as pods come on a calm node: `BLOCK` ADDs, then their DELs.

    The two contestants take turns block by block, so that a slow second of the machine hits both.
    """
    times: dict[tuple[str, str], list[float]] = {(p.name, verb): [] for p in pair for verb in ("ADD", "DEL")}
    for block in range(-1, rounds // BLOCK):
        for plugin in pair:
            for verb in ("ADD", "DEL"):
                for pod in range(BLOCK):
                    outcome = bed.execute(plugin, verb, f"serial-{block}-{pod}", bed.pods[pod])
                    require(plugin, verb, outcome)
                    if block >= 0:  # the first block warms caches up
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


def footprint(bed: Bed, agent: Agent, plugin: Plugin, pods: int) -> dict[str, Any]:
    """What the agent costs with `pods` attached: resident memory, and CPU of each ADD."""
    before = _cpu_seconds(agent.pid)
    run_parallel(bed, [(plugin, "ADD", f"held-{index}", bed.pods[index]) for index in range(pods)], 8)
    spent = _cpu_seconds(agent.pid) - before
    status = Path(f"/proc/{agent.pid}/status").read_text()
    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    run_parallel(bed, [(plugin, "DEL", f"held-{index}", bed.pods[index]) for index in range(pods)], 8)
    return {"pods": pods, "rss_mib": round(resident / 1024, 1), "cpu_ms_per_add": round(spent / pods * 1e3, 2)}


def allocation(bed: Bed) -> list[dict[str, Any]]:
    """The cost of one address with many held, both as delegated IPAM plugins: process start to answer.

    All stand at the same time, an agent and a data directory for each count, and are sampled in turn.
    """
    pairs = {held: _ipam_plugins(bed, held) for held in HELD}
    times: dict[tuple[int, str], list[float]] = {}
    for index in range(SAMPLES + WARM_UP):
        for held, pair in pairs.items():
            for plugin in pair:
                container = f"probe-{index}"
                outcome = bed.execute(plugin, "ADD", container, bed.pods[0])
                require(plugin, "ADD", outcome)
                require(plugin, "DEL", bed.execute(plugin, "DEL", container, bed.pods[0]))
                if index >= WARM_UP:
                    times.setdefault((held, plugin.name), []).append(outcome.seconds)
    return [
        {"held": held, **{plugin.name: percentiles(times[held, plugin.name]) for plugin in pair}}
        for held, pair in pairs.items()
    ]


def require(plugin: Plugin, verb: str, outcome: Any) -> None:  # noqa: ANN401
    """A failing call would make every figure meaningless."""
    if outcome.status != 0:
        sys.exit(f"{plugin.name} {verb} failed: {outcome.stdout.decode('utf-8', 'replace')}")


def _ipam_plugins(bed: Bed, held: int) -> tuple[Plugin, Plugin]:
    network, name = f"held{held}", f"agent{held}"
    fill(bed.directory / name / "state" / "ledger.db", network, held)
    _fill_host_local(bed, held)
    agent = bed.start_agent(name)
    conf = {"name": network, "type": "bridge"}
    host_local = {"type": "host-local", "subnet": SUBNET, "dataDir": str(bed.directory / "held")}
    return (
        beds.plugin(bed, "underlay-ipam", "underlay-ipam", {**conf, "ipam": own_ipam(SUBNET)}, agent.socket),
        beds.plugin(bed, "host-local", "host-local", {**conf, "ipam": host_local}),
    )


def _fill_host_local(bed: Bed, held: int) -> None:
    directory = bed.directory / "held" / f"held{held}"
    directory.mkdir(parents=True)
    addresses = [f"10.96.{index >> 8}.{index & 255}" for index in range(2, held + 2)]
    for index, address in enumerate(addresses):
        (directory / address).write_text(f"filler-{index}\r\neth0")
    if addresses:
        (directory / "last_reserved_ip.0").write_text(addresses[-1])


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def versions() -> dict[str, str]:
    """What was measured on what."""
    return {"kernel": os.uname().release, "python": sys.version.split()[0], "sqlite": sqlite3.sqlite_version}
