"""A segment in private namespaces: a bridge, nodes with an `eth0` on it, machines that stand for VMs, and empty pods.

Each namespace is named at random and removed with its fixture. A datapath under test is given its node's descriptor, so
one process drives several nodes.
"""

import contextlib
import json
import logging
import os
import re
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_interface
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cni_underlay.datapath import KernelDatapath
from cni_underlay.datapath.netns import inside
from cni_underlay.datapath.port import Expected, Wired, Wiring
from cni_underlay.records import (
    Attachment,
    Claim,
    DatapathKind,
    Dns,
    Instant,
    Lease,
    LeasedAddress,
    Pod,
    Route,
)

LOG = logging.getLogger("tests.netns")


def execute(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


@dataclass(kw_only=True)
class Machine:
    """A network namespace under a private name, with an open descriptor."""

    name: str
    descriptor: int = -1

    @property
    def path(self) -> str:
        return f"/run/netns/{self.name}"

    def ip(self, *arguments: str) -> str:
        return execute("ip", "-n", self.name, *arguments)

    def json(self, *arguments: str) -> list[dict[str, Any]]:
        return json.loads(self.ip("-j", "-d", *arguments) or "[]")

    def run(self, *command: str, check: bool = True) -> str:
        return execute("ip", "netns", "exec", self.name, *command, check=check)

    def inside(self, act: Callable[[], Any]) -> Any:
        return inside(self.descriptor, act)

    def sysctl(self, name: str, value: str | None = None) -> str:
        path = Path("/proc/sys/net", name)
        if value is not None:
            self.inside(lambda: path.write_text(value))
        return self.inside(lambda: path.read_text().strip())

    def ping(self, target: Any, *options: str) -> float:
        """Milliseconds of the first answer to one packet; fails after a second."""
        output = self.run("ping", "-n", "-c1", "-W1", *options, str(target))
        return float(re.search(r"time=([\d.]+) ms", output).group(1))

    def hears(self, target: Any) -> bool:
        return " 0% packet loss" in self.run("ping", "-n", "-c1", "-W1", str(target), check=False)

    def mac(self, ifname: str = "eth0") -> str:
        return self.json("link", "show", "dev", ifname)[0]["address"]

    def dump(self) -> str:
        """Links, addresses, routes, rules and neighbours, without what time alone changes."""
        parts = [
            self.ip("-o", "link", "show"),
            self.ip("-o", "addr", "show"),
            self.ip("route", "show", "table", "all"),
            self.ip("-6", "route", "show", "table", "all"),
            self.ip("neigh", "show", "proxy"),
            self.ip("-6", "neigh", "show", "proxy"),
        ]
        # Anycast routes come with forwarding, which stays on once a pod has needed it.
        lines = [line for line in "".join(parts).splitlines() if not line.startswith("anycast")]
        return re.sub(r"(expires|valid_lft|preferred_lft|state) \w+", "", "\n".join(sorted(lines)))


@dataclass(kw_only=True)
class Node(Machine):
    """A machine with a datapath."""

    datapath: KernelDatapath
    address4: str = ""
    address6: str = ""


@dataclass(kw_only=True)
class Segment:
    """One layer 2 network, 10.9.0.0/24 and 2001:db8:9::/64, with its gateway at .1 where a machine was given that."""

    prefix: str
    undo: ExitStack
    machines: list[Machine] = field(default_factory=list)
    count: int = 0

    def namespace(self, name: str) -> Machine:
        machine = Machine(name=f"{self.prefix}{name}")
        execute("ip", "netns", "add", machine.name)
        self.undo.callback(execute, "ip", "netns", "del", machine.name, check=False)
        machine.descriptor = os.open(machine.path, os.O_RDONLY | os.O_CLOEXEC)
        self.undo.callback(_close, machine)
        machine.ip("link", "set", "lo", "up")
        return machine

    def plug(self, machine: Machine, number: int, ifname: str = "eth0") -> None:
        """Give the machine an interface on the bridge with 10.9.0.`number`."""
        self.count += 1
        port = f"port{self.count}"
        # A machine that has been up for a while: without this its link-local address would be tentative for a second.
        for name in ("all", "default"):
            machine.sysctl(f"ipv6/conf/{name}/accept_dad", "0")
        execute(
            *("ip", "-n", f"{self.prefix}seg", "link", "add", port, "type", "veth"),
            *("peer", "name", ifname, "netns", machine.name),
        )
        execute("ip", "-n", f"{self.prefix}seg", "link", "set", port, "master", "br0", "up")
        machine.ip("link", "set", ifname, "up")
        machine.ip("addr", "add", f"10.9.0.{number}/24", "dev", ifname)
        machine.ip("addr", "add", f"2001:db8:9::{number:x}/64", "dev", ifname, "nodad")

    def vm(self, number: int) -> Machine:
        machine = self.namespace(f"vm{number}")
        self.plug(machine, number)
        return machine

    def node(self, number: int) -> Node:
        machine = self.namespace(f"node{number}")
        self.plug(machine, number)
        datapath = KernelDatapath(log=LOG, netns=machine.descriptor)
        self.undo.callback(datapath.close)
        return Node(
            name=machine.name,
            descriptor=machine.descriptor,
            datapath=datapath,
            address4=f"10.9.0.{number}",
            address6=f"2001:db8:9::{number:x}",
        )

    def pod(self) -> Machine:
        self.count += 1
        return self.namespace(f"pod{self.count}")


def _close(machine: Machine) -> None:
    with contextlib.suppress(OSError):
        os.close(machine.descriptor)
    machine.descriptor = -1


@pytest.fixture
def segment() -> Iterator[Segment]:
    with ExitStack() as undo:
        made = Segment(prefix=f"t{secrets.token_hex(3)}", undo=undo)
        switch = made.namespace("seg")
        switch.ip("link", "add", "br0", "type", "bridge")
        switch.ip("link", "set", "br0", "up")
        yield made


@pytest.fixture
def node(segment: Segment) -> Node:
    return segment.node(2)


@pytest.fixture
def vm(segment: Segment) -> Machine:
    return segment.vm(9)


def wiring(number: int, **changes: Any) -> Wiring:
    """A veth interface with 10.9.0.`number` and 2001:db8:9::`number`; `versions`, `routes` and every field may differ."""
    versions = changes.pop("versions", (4, 6))
    attachment = Attachment(network="underlay", container_id=f"c{number}", ifname=changes.pop("ifname", "eth0"))
    subnets = {4: (f"10.9.0.{number}/24", "10.9.0.1"), 6: (f"2001:db8:9::{number:x}/64", "2001:db8:9::1")}
    addresses = tuple(
        LeasedAddress(
            pool="app", slot=slot, interface=ip_interface(subnets[v][0]), gateway=ip_address(subnets[v][1])
        )
        for slot, v in enumerate(versions)
    )
    values = {
        "attachment": attachment,
        "pod": Pod(),
        "kind": DatapathKind.VETH,
        "mode": "",
        "master": "eth0",
        "mtu": 0,
        "mac": "",
        "addresses": addresses,
        "routes": (),
    } | changes
    values.setdefault("host_ifname", f"und{attachment.digest[:11]}" if values["kind"] == DatapathKind.VETH else "")
    return Wiring(**values)


def lease(of: Wiring) -> Lease:
    """The ledger's row for a wiring."""
    return Lease(
        generation=1,
        claim=Claim(
            attachment=of.attachment,
            datapath=of.kind,
            mode=of.mode,
            master=of.master,
            mtu=of.mtu,
            mac=of.mac,
            host_ifname=of.host_ifname,
        ),
        addresses=of.addresses,
        routes=of.routes,
        dns=Dns(),
        leased_at=Instant(wall=0.0, uptime=0.0, boot_id=""),
    )


def expected(wired: Wired) -> Expected:
    """What a runtime would hand to CHECK after this answer."""
    return Expected(
        mac=wired.links[-1].mac,
        mtu=wired.links[-1].mtu,
        addresses=tuple(endpoint.interface for endpoint in wired.addresses),
        gateways=tuple(endpoint.gateway for endpoint in wired.addresses if endpoint.gateway is not None),
        routes=wired.routes,
    )


def until(condition: Callable[[], Any], seconds: float = 5.0) -> Any:
    """Wait for a condition; returns its first true value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.01)
    return value


@pytest.fixture
def make() -> SimpleNamespace:
    """Values that tests build: `make.wiring(number, ...)`, `make.lease(wiring)`, `make.expected(wired)`, `make.until(...)`."""
    return SimpleNamespace(
        wiring=wiring, lease=lease, expected=expected, until=until, execute=execute, Route=Route, replace=replace
    )


@pytest.fixture
def listen() -> Iterator[Callable[[Machine, str, str], Callable[..., list[str]]]]:
    """`seen = listen(machine, interface, filter)` starts tcpdump; `seen(text, count=n)` waits for n lines with the text."""
    with ExitStack() as undo:
        yield lambda machine, ifname, expression: _listen(undo, machine, ifname, expression)


def _listen(undo: ExitStack, machine: Machine, ifname: str, expression: str) -> Callable[..., list[str]]:
    command = ["ip", "netns", "exec", machine.name, "tcpdump", "-lnei", ifname, "--immediate-mode", expression]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    undo.callback(process.wait)
    for line in process.stderr:
        if "listening on" in line:
            break
    lines: list[str] = []
    follower = threading.Thread(target=lambda: [lines.append(line) for line in process.stdout], daemon=True)
    follower.start()
    undo.callback(process.stdout.close)
    undo.callback(process.stderr.close)
    undo.callback(follower.join)
    undo.callback(process.kill)

    def seen(text: str, count: int = 1, seconds: float = 5.0) -> list[str]:
        until(lambda: len([line for line in lines if text in line]) >= count, seconds)
        return [line for line in lines if text in line]

    seen.lines = lines
    return seen


_KINDS: dict[str, bool] = {}


def _kernel_makes(kind: str) -> bool:
    """Try it in a namespace of our own."""
    if kind not in _KINDS:
        name = f"t{secrets.token_hex(3)}kind"
        execute("ip", "netns", "add", name)
        try:
            execute("ip", "-n", name, "link", "add", "lower", "type", "veth", "peer", "name", "other")
            done = subprocess.run(
                ["ip", "-n", name, "link", "add", "probe", "link", "lower", "type", kind],
                capture_output=True,
                check=False,
            )
            _KINDS[kind] = done.returncode == 0
        finally:
            execute("ip", "netns", "del", name)
    return _KINDS[kind]


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("kind"):
        if not _kernel_makes(marker.args[0]):
            pytest.skip(f"this kernel cannot make {marker.args[0]} links")
