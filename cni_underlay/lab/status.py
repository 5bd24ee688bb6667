"""What runs in a lab: plain values for JSON, and the same as a table."""

from collections.abc import Iterator, Sequence
from typing import Any

from cni_underlay.lab.guest_vm import GuestVm
from cni_underlay.lab.host import Host
from cni_underlay.lab.lab import Lab
from cni_underlay.lab.node import Node
from cni_underlay.lab.pod import Pod
from cni_underlay.lab.topology import HostSpec, NodeSpec, VmSpec

_COLUMNS = ("NAME", "KIND", "SEGMENT", "ADDRESSES", "STATE")


def status(lab: Lab) -> dict[str, Any]:
    """The lab's hosts, and under each node its pods."""
    return {
        "id": lab.id,
        "directory": str(lab.directory),
        "segments": {s.name: [str(subnet) for subnet in s.subnets] for s in lab.topology.segments},
        "hosts": [_host(lab, host) for host in lab.hosts],
    }


def table(report: dict[str, Any]) -> str:
    """Columns as kubectl prints them."""
    rows = [_COLUMNS, *_rows(report["hosts"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    return "\n".join("   ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _rows(hosts: Sequence[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    for host in hosts:
        yield (host["name"], host["kind"], ",".join(host["segments"]), ",".join(host["addresses"]), host["state"])
        for pod in host.get("pods", ()):
            yield (f"{host['name']}/{pod['name']}", "pod", "", ",".join(pod["addresses"]), pod["state"])


def _host(lab: Lab, host: Host) -> dict[str, Any]:
    spec = next(spec for spec in lab.topology.hosts if spec.name == host.name)
    report: dict[str, Any] = {
        "name": host.name,
        "kind": _kind(spec),
        "segments": [uplink.segment.name for uplink in spec.uplinks],
        "addresses": [str(address) for address in host.addresses],
        "state": _state(host),
    }
    if isinstance(host, Node):
        report["socket"] = str(host.agent.socket)
        report["log"] = str(host.agent.log)
        report["pods"] = [_pod(pod) for pod in host.pods()]
    return report


def _kind(spec: HostSpec) -> str:
    if isinstance(spec, VmSpec):
        return f"vm/{spec.kind}"
    return "node" if isinstance(spec, NodeSpec) else "router"


def _state(host: Host) -> str:
    if isinstance(host, GuestVm):
        return "running" if host.process else "dead"
    if isinstance(host, Node) and host.spec.agent is not None:
        return "agent running" if host.agent.process else "agent dead"
    return "up"


def _pod(pod: Pod) -> dict[str, Any]:
    return {
        "name": pod.name,
        "container_id": pod.container_id,
        "netns": str(pod.netns),
        "addresses": [str(address) for address in pod.addresses],
        "state": "added" if pod.result is not None else "not added",
    }
