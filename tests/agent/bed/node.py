"""A node: a namespace whose eth0 leads to a switch, a directory for everything else, and the pods' namespaces."""

import itertools
import json
import secrets
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cni_underlay import client
from cni_underlay.lab import netns

_T = TypeVar("_T")

GATEWAY = "10.77.0.1"
NODE_ADDRESS = "10.77.0.2"
POOLS = [{"name": "app", "ranges": [{"subnet": "10.77.0.0/16", "range": "10.77.1.0-10.77.255.250"}]}]
REFERENCE = Path("/usr/lib/cni")
PROTOCOL = "85"  # of every route that is ours


def read_batch(path: Path, *lines: str) -> list[list[dict[str, Any]]]:
    """What ip(8) says to each line, in the namespace at `path`."""
    text = "".join(f"{line}\n" for line in lines)
    command = ["ip", "-j", "-d", "-batch", "-"]
    done = netns.inside(path, lambda: subprocess.run(command, input=text, capture_output=True, text=True, check=True))
    return [[entry for entry in json.loads(line) if entry] for line in done.stdout.splitlines()]


@dataclass(slots=True, kw_only=True)
class Pod:
    """A sandbox: a namespace, and the id that the runtime gave it."""

    netns: Path
    container: str = field(default_factory=lambda: secrets.token_hex(16))

    def links(self) -> dict[str, dict[str, Any]]:
        return {link["ifname"]: link for link in read_batch(self.netns, "addr show")[0]}

    def addresses(self, ifname: str = "eth0") -> set[str]:
        """The interface's IPv4 addresses; empty where there is none."""
        return {info["local"] for info in self.links().get(ifname, {}).get("addr_info", ()) if info["family"] == "inet"}


@dataclass(slots=True, kw_only=True)
class Node:
    """Runs commands in its namespace. `pods` are all that were made here, with or without an attachment."""

    directory: Path
    pods: list[Pod] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def netns(self) -> Path:
        return self.directory / "netns" / "node"

    @property
    def socket(self) -> Path:
        return self.directory / "run" / "agent.sock"

    @property
    def spool(self) -> Path:
        return self.directory / "run" / "spool"

    @property
    def ledger(self) -> Path:
        return self.directory / "state" / "ledger.db"

    @property
    def bin(self) -> Path:
        return self.directory / "bin"

    def inside(self, act: Callable[[], _T]) -> _T:
        """Call `act` in a thread that has entered the node's namespace; its processes and sockets stay there."""
        return netns.inside(self.netns, act)

    def run(self, *command: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run to the end; output is captured as text."""
        settings = {"capture_output": True, "text": True, "check": True, **options}
        return self.inside(lambda: subprocess.run(command, **settings))  # noqa: PLW1510  # it is among them

    def make_pod(self) -> Pod:
        pod = Pod(netns=self.directory / "netns" / f"pod-{next(self._numbers)}")
        netns.create(pod.netns, {})
        self.pods.append(pod)
        return pod

    def remove_pod(self, pod: Pod) -> None:
        """Take the sandbox away, as a runtime does after DEL."""
        netns.remove(pod.netns)
        self.pods.remove(pod)

    def kernel(self) -> dict[str, Any]:
        """What a plugin could leave on the node: links, routes of its own protocol, rules, proxy neighbours."""
        links, routes, rules, proxies = read_batch(
            self.netns, "link show", "route show table all", "rule show", "neigh show proxy"
        )
        return {
            "links": sorted(link["ifname"] for link in links),
            "routes": sorted(
                f"{route['dst']} {route.get('dev')}" for route in routes if route.get("protocol") == PROTOCOL
            ),
            "rules": sorted(str(rule) for rule in rules),
            "proxies": sorted(f"{entry['dst']} {entry['dev']}" for entry in proxies),
        }

    def spooled(self) -> list[str]:
        """The names of what lies in the spool, also of what is half written."""
        return sorted(path.name for path in self.spool.iterdir()) if self.spool.is_dir() else []

    def install(self) -> None:
        """Both names of the client in the node's plugin directory."""
        self.bin.mkdir()
        for name in ("underlay", "underlay-ipam"):
            (self.bin / name).symlink_to(client.path())

    def write_plugin(self, name: str, lines: Sequence[str]) -> Path:
        """A delegate that is a shell script; it is found by its name in CNI_PATH."""
        path = self.bin / name
        path.write_text("\n".join(("#!/bin/sh", *lines, "")))
        path.chmod(0o755)
        return path


@contextmanager
def made(directory: Path) -> Iterator[Node]:
    """A node on a switch, without an agent; nothing of it is left afterwards."""
    node = Node(directory=directory)
    switch = directory / "netns" / "switch"
    switch.parent.mkdir()
    with ExitStack() as undo:
        undo.callback(lambda: [netns.remove(pod.netns) for pod in node.pods])
        for path in (switch, node.netns):
            undo.callback(netns.remove, path)
            netns.create(path, {})
        node.install()
        lines = (
            f"link add port type veth peer name eth0 netns {_process_in(node.netns, undo)}",
            f"addr add {GATEWAY}/16 dev port",
            "link set port up",
        )
        read_batch(switch, *lines)
        read_batch(
            node.netns,
            f"addr add {NODE_ADDRESS}/16 dev eth0",
            "link set eth0 up",
            f"route add default via {GATEWAY}",
        )
        yield node


def _process_in(path: Path, undo: ExitStack) -> int:
    """The id of a process that stays in the namespace until the block ends: ip(8) names namespaces by processes."""
    process = netns.inside(path, lambda: subprocess.Popen(["sleep", "infinity"]))
    undo.callback(process.wait)
    undo.callback(process.kill)
    return process.pid
