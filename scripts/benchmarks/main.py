"""`scripts/bench`: which measurement, how it is printed."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import bed as beds
import measure

Row = tuple[str, str, str, str, str]


def main() -> None:
    """Measure, print a table with ratios (ours to the reference's), or JSON."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("cni", "allocation", "all"), default="all")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--rounds", type=int, default=100, help="ADD/DEL pairs one at a time (default: %(default)s)")
    parser.add_argument("--pods", type=int, default=250, help="pods of the parallel runs (default: %(default)s)")
    arguments = parser.parse_args()
    report: dict[str, Any] = {"versions": measure.versions()}
    with beds.build() as bed:
        bed.add_pods(max(arguments.pods, measure.BLOCK))
        if arguments.what in ("cni", "all"):
            agent = bed.start_agent("agent")
            report["cni"] = {
                kind: _cni(bed, agent, pair, arguments.rounds, arguments.pods)
                for kind, pair in beds.plugins(bed, agent).items()
            }
        if arguments.what in ("allocation", "all"):
            report["allocation"] = measure.allocation(bed)
    print(json.dumps(report, indent=2) if arguments.json else _text(report))


def _cni(bed: beds.Bed, agent: beds.Agent, pair: Sequence[beds.Plugin], rounds: int, pods: int) -> dict[str, Any]:
    print(f"measuring {pair[0].name} against {pair[1].name}", file=sys.stderr)
    return {
        "names": [plugin.name for plugin in pair],
        "serial": measure.one_at_a_time(bed, pair, rounds),
        "parallel": {str(width): measure.in_parallel(bed, pair, width, pods) for width in measure.PARALLEL},
        "agent": measure.footprint(bed, agent, pair[0], pods),
    }


def _text(report: dict[str, Any]) -> str:
    parts = [" ".join(f"{name} {value}" for name, value in report["versions"].items())]
    for figures in report.get("cni", {}).values():
        own, reference = figures["names"]
        rows: list[Row] = []
        for verb in ("ADD", "DEL"):
            for measured in ("p50_ms", "p99_ms"):
                a, b = (figures["serial"][name][verb][measured] for name in (own, reference))
                rows.append(
                    (
                        f"{verb} {measured[:3]}, one at a time",
                        f"{a:.2f} ms",
                        f"{b:.2f} ms",
                        f"{b / a:.1f}x",
                        f"{a / b:.2f}",
                    )
                )
        for width, parallel in figures["parallel"].items():
            for verb in ("ADD", "DEL"):
                a, b = (parallel[name][verb]["per_second"] for name in (own, reference))
                rows.append(
                    (f"{verb} at {width} in parallel", f"{a:.0f}/s", f"{b:.0f}/s", f"{a / b:.1f}x", f"{b / a:.2f}")
                )
        agent = figures["agent"]
        parts.append(_table(("measure", own, reference, "faster", "time ratio"), rows))
        parts.append(
            f"agent with {agent['pods']} pods: {agent['rss_mib']} MiB resident, {agent['cpu_ms_per_add']} ms CPU an ADD"
        )
    if "allocation" in report:
        empty = report["allocation"][0]
        rows = []
        for row in report["allocation"]:
            a, b = row["underlay-ipam"]["p50_ms"], row["host-local"]["p50_ms"]
            rows.append(
                (
                    f"{row['held']} leases held",
                    f"{a:.2f} ms",
                    f"{b:.2f} ms",
                    f"{b / a:.1f}x",
                    f"{a / empty['underlay-ipam']['p50_ms']:.2f}",
                )
            )
        parts.append(_table(("allocation p50", "underlay-ipam", "host-local", "faster", "to empty"), rows))
    return "\n\n".join(parts)


def _table(header: Row, rows: Sequence[Row]) -> str:
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


if __name__ == "__main__":
    main()
