"""Documents as people and machines read them: kubectl-like columns, JSON, YAML."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
Column = tuple[str, Callable[[Row], str]]
FORMATS = ("table", "wide", "json", "yaml")
_AGES = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_TWO_UNITS_BELOW = 10  # "2m5s", but "12m": as kubectl's ages


def age(seconds: float) -> str:
    """A duration as kubectl prints ages: `5s`, `2m5s`, `12m`, `3h10m`, `2d`."""
    left = max(0, int(seconds))
    for index, (size, unit) in enumerate(_AGES):
        if left >= size:
            count, rest = divmod(left, size)
            text = f"{count}{unit}"
            if count < _TWO_UNITS_BELOW and index + 1 < len(_AGES):
                smaller, smaller_unit = _AGES[index + 1]
                if rest >= smaller:
                    text += f"{rest // smaller}{smaller_unit}"
            return text
    return "0s"


def _pod(row: Row) -> str:
    pod = row["pod"]
    return f"{pod['namespace']}/{pod['name']}" if pod["name"] else "-"


def _addresses(row: Row) -> str:
    return ",".join(entry["address"] for entry in row["addresses"]) or "-"


def _pools(row: Row) -> str:
    return ",".join(dict.fromkeys(entry["pool"] for entry in row["addresses"])) or "-"


def _harmless(cell: str) -> str:
    """What runtimes send may hold line breaks, and characters that a terminal obeys."""
    if cell.isprintable():
        return cell
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in cell)


def _count(name: str) -> Callable[[Row], str]:
    """Addresses; what an IPv6 subnet has is nothing to be counted by digits."""
    return lambda row: "-" if row[name] is None else f"{row[name]:.1e}" if row[name] >= _UNCOUNTABLE else str(row[name])


def _field(name: str) -> Callable[[Row], str]:
    return lambda row: str(row[name]) if row[name] not in ("", None) else "-"


_UNCOUNTABLE = 10**9
_SHORT_ID = 13  # as crictl prints container ids

LEASES: Sequence[Column] = (
    ("ADDRESS", _addresses),
    ("POD", _pod),
    ("IFNAME", _field("ifname")),
    ("DATAPATH", _field("datapath")),
    ("POOL", _pools),
    ("CONTAINER", lambda row: row["container_id"][:_SHORT_ID]),
    ("AGE", lambda row: age(time.time() - row["leased_at"])),
)
LEASES_WIDE: Sequence[Column] = (
    *LEASES[:5],
    ("MAC", _field("mac")),
    ("MASTER", _field("master")),
    ("HOST-LINK", _field("host_ifname")),
    ("NETWORK", _field("network")),
    ("GENERATION", _field("generation")),
    ("CONTAINER", _field("container_id")),
    ("NETNS", _field("netns")),
    LEASES[-1],
)
POOLS: Sequence[Column] = (
    ("POOL", _field("pool")),
    ("SUBNETS", lambda row: ",".join(row["subnets"]) or "-"),
    ("SIZE", _count("size")),
    ("LEASED", _field("leased")),
    ("QUARANTINED", _field("quarantined")),
    ("RESERVED", _field("reserved")),
    ("FOREIGN", _field("foreign")),
    ("FREE", _count("free")),
)
HISTORY: Sequence[Column] = (
    ("AT", lambda row: time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(row["at"]))),
    ("WHAT", _field("what")),
    ("ADDRESS", _field("address")),
    ("POD", _pod),
    ("CONTAINER", lambda row: row["container_id"][:_SHORT_ID] or "-"),
    ("IFNAME", _field("ifname")),
    ("MAC", _field("mac")),
    ("REASON", _field("reason")),
)
HISTORY_WIDE: Sequence[Column] = (
    *HISTORY[:4],
    ("CONTAINER", _field("container_id")),
    *HISTORY[5:7],
    ("POOL", _field("pool")),
    ("NETWORK", _field("network")),
    ("GENERATION", _field("generation")),
    HISTORY[-1],
)
VERSION: Sequence[Column] = (
    ("PROGRAM", _field("program")),
    ("VERSION", _field("version")),
    ("NODE", _field("node")),
)


def render(rows: Iterable[Row], columns: Sequence[Column], output: str) -> str:
    """The rows in one of `FORMATS`; a table without rows is its header alone."""
    if output == "json":
        return json.dumps(list(rows), indent=2)
    if output == "yaml":
        import yaml  # noqa: PLC0415  # 17 ms that a table does not need

        return str(yaml.safe_dump(list(rows), sort_keys=False)).rstrip()
    table = [[name for name, _ in columns], *([_harmless(show(row)) for _, show in columns] for row in rows)]
    widths = [max(len(line[index]) for line in table) for index in range(len(columns))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table
    )
