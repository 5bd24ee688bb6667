"""A node of its own: a switch with a gateway, a machine on the segment, the node with its master, and an agent."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cni_underlay import client
from cni_underlay.agent import protocol
from cni_underlay.errors import UnderlayError

from .calls import Caller, Outcome
from .kinds import Json, Option
from .netns import Namespace, Pod, difference, unique

SUBNET4, SUBNET6 = "10.89.0.0/24", "fd00:89::/64"
GATEWAY4, GATEWAY6 = "10.89.0.1", "fd00:89::1"
NODE4, NODE6 = "10.89.0.2", "fd00:89::2"
MACHINE4, MACHINE6 = "10.89.0.3", "fd00:89::3"
MASTER = "eth0"
START_SECONDS = 30.0
HOST_LINK = "cni-underlay:host:"  # the mark of the node's own link on a master


@dataclass(slots=True, kw_only=True)
class Node:
    """One node and the segment it is on."""

    directory: Path
    name: str = field(default_factory=lambda: unique("h"))
    settings: dict[str, Any] = field(default_factory=dict)
    launcher: tuple[str, ...] = ()
    host: Namespace = field(init=False)
    switch: Namespace = field(init=False)
    machine: Namespace = field(init=False)
    cni: Caller = field(init=False)
    agent: "subprocess.Popen[bytes] | None" = None
    clean: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.host, self.switch, self.machine = (Namespace(f"{self.name}{part}") for part in "nsm")
        self.cni = Caller(
            netns=self.host.path,
            bin_dir=self.directory / "bin",
            environment={"UNDERLAY_SOCKET": str(self.socket)},
            log=self.log,
        )

    @property
    def socket(self) -> Path:
        return self.directory / "run" / "agent.sock"

    @property
    def spool(self) -> Path:
        return self.directory / "run" / "spool"

    @property
    def state_dir(self) -> Path:
        return self.directory / "state"

    @property
    def log(self) -> Path:
        return self.directory / "agent.log"

    def install(self) -> None:
        """The client under both of its names: a file, and a link to it."""
        (self.directory / "bin").mkdir()
        shutil.copy2(client.path(), self.directory / "bin" / "underlay")
        (self.directory / "bin" / "underlay-ipam").symlink_to("underlay")

    def wire(self) -> None:
        """Make the segment and the node's place on it."""
        for namespace in (self.switch, self.host, self.machine):
            namespace.create()
            # A tentative address answers nobody for a second, and nobody else can have these.
            namespace.run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.all.accept_dad=0")
        # A node of a cluster forwards; and the kernel answers a change of it with routes of its own.
        self.host.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        self.switch.configure(
            "link add br0 type bridge mcast_snooping 0",
            "link set br0 up",
            f"addr add {GATEWAY4}/24 dev br0",
            f"addr add {GATEWAY6}/64 dev br0 nodad",
        )
        self.plug(self.host, MASTER)
        self.plug(self.machine, "eth0")
        for namespace, address4, address6 in ((self.host, NODE4, NODE6), (self.machine, MACHINE4, MACHINE6)):
            namespace.configure(
                f"addr add {address4}/24 dev eth0",
                f"addr add {address6}/64 dev eth0 nodad",
                f"route add default via {GATEWAY4}",
                f"route add default via {GATEWAY6}",
            )

    def call(self, pod: Pod, verb: str, conf: dict[str, Any] | bytes, **options: Option) -> Outcome:
        """A call for the pod's eth0."""
        return self.cni(verb, conf, container=pod.container, netns=pod.path, ifname="eth0", **options)

    def plug(self, namespace: Namespace, ifname: str) -> None:
        """Connect a namespace to the switch."""
        port = unique("p")
        self.switch.configure(
            f"link add {port} type veth peer name {ifname} netns {namespace.name}", f"link set {port} master br0 up"
        )
        namespace.configure(f"link set {ifname} up")

    def start_agent(self, **settings: Option) -> None:
        """Start underlayd and wait until it serves; asserts that it does. `settings` stay for later starts."""
        self.settings |= settings
        process = self.launch_agent()
        deadline = time.monotonic() + START_SECONDS
        while not self.serves():
            assert process.poll() is None, f"the agent ended with {process.returncode}:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"the agent does not serve:\n{self.log.read_text()}"
            time.sleep(0.005)

    def launch_agent(self) -> "subprocess.Popen[bytes]":
        """Start underlayd and wait for nothing."""
        config = self.directory / "agent.json"
        config.write_text(
            json.dumps(
                {
                    "node": self.name,
                    "socket": str(self.socket),
                    "state_dir": str(self.state_dir),
                    "http": False,
                    "quarantine": "0s",
                    "floor": "0s",
                }
                | self.settings
            )
        )
        with self.log.open("ab") as log:
            command = [*self.launcher, sys.executable, "-m", "cni_underlay.agent", "--config", str(config)]
            self.agent = self.host.spawn(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
        return self.agent

    def serves(self) -> bool:
        try:
            self.ask("version")
        except (OSError, UnderlayError, AssertionError):
            return False
        return True

    def stop_agent(self) -> None:
        """Stop it gracefully; no effect where none runs."""
        if self.agent is not None:
            self.agent.terminate()
            try:
                self.agent.wait(30)
            finally:
                self.kill_agent()

    def kill_agent(self) -> None:
        if self.agent is not None:
            self.agent.kill()
            self.agent.wait(30)
            self.agent = None

    def ask(self, command: str, **query: Option) -> Json:
        """An admin's question to the agent."""
        frame = protocol.request(protocol.KIND_ADMIN, {}, json.dumps({"command": command, **query}).encode())
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(START_SECONDS)
            connection.connect(str(self.socket))
            connection.sendall(frame)
            answer = protocol.receive_answer(connection)
        assert answer.status == 0, answer.stdout
        return json.loads(answer.stdout)

    def leases(self, network: str | None = None) -> list[dict[str, Any]]:
        """What the ledger holds, of one network or of all."""
        return [lease for lease in self.ask("leases") if network in (None, lease["network"])]

    def state(self) -> dict[str, Any]:
        """All that a call could leave behind on the node: kernel and ledger.

        Without the node's own links on its masters: they are shared by attachments, and outlive the last for a moment.
        """
        kernel = self.host.state()
        own = {link["ifname"] for link in kernel["links"] if link.get("ifalias", "").startswith(HOST_LINK)}
        return {
            part: [entry for entry in entries if not own & {entry.get("ifname"), entry.get("dev")}]
            for part, entries in kernel.items()
        } | {"leases": self.leases()}

    def changes(self) -> dict[str, Any]:
        """What differs from the state after the agent's start."""
        return difference(self.clean, self.state())

    def descriptors(self) -> int:
        """How many descriptors the agent has open."""
        assert self.agent is not None
        return len(list(Path(f"/proc/{self.agent.pid}/fd").iterdir()))


@contextmanager
def running(directory: Path, **settings: Option) -> Iterator[Node]:
    """A node that serves; nothing of it is left afterwards."""
    with wired(directory) as node:
        node.start_agent(**settings)
        node.clean = node.state()
        yield node


@contextmanager
def wired(directory: Path) -> Iterator[Node]:
    """A node whose agent has not been started."""
    node = Node(directory=directory)
    with ExitStack() as undo:
        for namespace in (node.switch, node.host, node.machine):
            undo.callback(namespace.remove)
        undo.callback(node.stop_agent)
        node.install()
        node.wire()
        yield node
