"""A segment in private namespaces: a bridge, nodes with an `eth0` on it, machines that stand for VMs, and empty pods.

Each namespace is named at random and removed with its fixture. A datapath under test is given its node's descriptor, so
one process drives several nodes.
"""

import contextlib
import json
import logging
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cni_underlay.datapath import KernelDatapath
from cni_underlay.datapath.netns import inside

T = TypeVar("T")

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
        found: list[dict[str, Any]] = json.loads(self.ip("-j", "-d", *arguments) or "[]")
        return found

    def run(self, *command: str, check: bool = True) -> str:
        return execute("ip", "netns", "exec", self.name, *command, check=check)

    def inside(self, act: Callable[[], T]) -> T:
        return inside(self.descriptor, act)

    def sysctl(self, name: str, value: str | None = None) -> str:
        path = Path("/proc/sys/net", name)
        if value is not None:
            self.inside(lambda: path.write_text(value))
        return self.inside(lambda: path.read_text().strip())

    def ping(self, target: str, *options: str) -> float:
        """Milliseconds of the first answer to one packet; fails after a second."""
        output = self.run("ping", "-n", "-c1", "-W1", *options, target)
        found = re.search(r"time=([\d.]+) ms", output)
        assert found, output
        return float(found[1])

    def hears(self, target: str) -> bool:
        return " 0% packet loss" in self.run("ping", "-n", "-c1", "-W1", target, check=False)

    def mac(self, ifname: str = "eth0") -> str:
        return str(self.json("link", "show", "dev", ifname)[0]["address"])

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
        return re.sub(
            r"(expires|valid_lft|preferred_lft|state|qdisc) \w+|NO-CARRIER,|,LOWER_UP", "", "\n".join(sorted(lines))
        )


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
    count: int = 0

    def switch_on(self) -> None:
        switch = self.namespace("seg")
        switch.ip("link", "add", "br0", "type", "bridge")
        switch.ip("link", "set", "br0", "up")

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
        # The end brought up first drops what it should send until the kernel's link watch has run.
        until(lambda: "state UP" in execute("ip", "-n", f"{self.prefix}seg", "link", "show", "dev", port))
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

    def forget(self, machine: Machine) -> None:
        """Let go of a namespace: its name and our descriptor."""
        execute("ip", "netns", "del", machine.name)
        _close(machine)


def _close(machine: Machine) -> None:
    with contextlib.suppress(OSError):
        os.close(machine.descriptor)
    machine.descriptor = -1


def together(act: Callable[[int], object], numbers: Iterable[int]) -> None:
    """Run `act(number)` for all numbers at once, each in its thread; raises the first failure."""
    wanted = list(numbers)
    with ThreadPoolExecutor(len(wanted)) as threads:
        for done in [threads.submit(act, number) for number in wanted]:
            done.result()


def until(condition: Callable[[], T], seconds: float = 5.0) -> T:
    """Wait for a condition; returns its first true value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.01)
    return value
