"""A lab: what one topology says, made of namespaces, and taken away again without a trace.

All namespaces are private, also the one with the switch: this machine's own namespace gets no link, address, route or
rule. What is running can be found from the lab's directory alone (see `registry`), so any process may take a lab down,
also one whose builder was killed half-way.
"""

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from cni_underlay.lab import netns, registry, topology_file, wiring
from cni_underlay.lab.errors import LabError
from cni_underlay.lab.guest_vm import GuestVm
from cni_underlay.lab.host import Host
from cni_underlay.lab.node import Node
from cni_underlay.lab.process import Processes, ProcessId, kill_members
from cni_underlay.lab.registry import LabDirectory
from cni_underlay.lab.topology import HostSpec, NodeSpec, Topology, VmSpec
from cni_underlay.lab.vm import Machine

# No host can be called like this.
_SWITCH = "@switch"


class Lab:
    """One lab. Use it as a context manager, or call `up` and `down`; `attach` gives one that is up already.

    A lab made here does not outlive this process by intention: `sweep` of any later process takes it down.
    """

    def __init__(self, topology: Topology | Mapping[str, object] | Path | str) -> None:
        self.topology = _load(topology)
        self._directory: LabDirectory | None = None
        self._hosts: dict[str, Host] = {}
        self._processes: Processes | None = None

    @classmethod
    def attach(cls, directory: LabDirectory) -> Self:
        """The lab of a directory (`registry.find`), with its hosts as they are."""
        lab = cls(directory.topology())
        lab._adopt(directory)
        return lab

    @property
    def id(self) -> str:
        """Its name, with a suffix that no other lab has."""
        return self._up().id

    @property
    def directory(self) -> Path:
        """Where everything that it needs is kept."""
        return self._up().path

    def up(self, *, source: Path | None = None) -> None:
        """Build everything, or raise (`LabError`) with everything undone.

        With `source`, the file the topology came from, the lab is meant to stay when this process ends.
        """
        if self._directory is not None:
            raise LabError(f"lab {self.id} is up already")
        if os.geteuid() != 0:
            raise LabError("a lab needs root: it makes network namespaces")
        owner = ProcessId.of(os.getpid()) if source is None else None
        directory = registry.create(self.topology, os.path.realpath(source) if source else "", owner)
        with contextlib.ExitStack() as undo:
            undo.callback(self.down)
            self._adopt(directory)
            with directory.building():
                self._build()
            undo.pop_all()

    def down(self) -> None:
        """Take everything away; nothing happens where nothing is up."""
        if self._directory is not None:
            demolish(self._directory)
            for node in self.nodes:
                node.agent.stop_listening()
            self._running().collect()
        self._directory = None
        self._hosts.clear()

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def host(self, name: str) -> Host:
        """The host of that name, whatever it is; "NODE/POD" is a pod. Raises `LabError`."""
        self._up()
        node, slash, pod = name.partition("/")
        if slash:
            return self.node(node).existing_pod(pod)
        if name not in self._hosts:
            raise LabError(f"lab {self.id} has no host {name!r}; it has {', '.join(self._hosts)}")
        return self._hosts[name]

    def node(self, name: str) -> Node:
        """The node of that name, or `LabError`."""
        host = self.host(name)
        if not isinstance(host, Node):
            raise LabError(f"{name} is no node")
        return host

    def vm(self, name: str) -> Host:
        """The VM of that name, of either kind, or `LabError`."""
        host = self.host(name)
        if name not in (spec.name for spec in self.topology.vms):
            raise LabError(f"{name} is no VM")
        return host

    def router(self, name: str) -> Machine:
        """The router of that name, or `LabError`."""
        host = self.host(name)
        if not isinstance(host, Machine) or name not in (spec.name for spec in self.topology.routers):
            raise LabError(f"{name} is no router")
        return host

    @property
    def hosts(self) -> tuple[Host, ...]:
        """Routers, nodes, VMs, in the topology's order."""
        return tuple(self._hosts.values())

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes, in the topology's order."""
        return tuple(host for host in self.hosts if isinstance(host, Node))

    @property
    def switch(self) -> Path:
        """The namespace that holds the segments' bridges, for captures and for cutting links."""
        return _namespaces(self._up()) / _SWITCH

    def in_switch(self, *command: str) -> str:
        """Output of a command in the switch's namespace, where a segment is a bridge and a port is "HOST.INDEX"."""
        done = self._running().run(self.switch, command, stdin="", timeout=30.0, environment=os.environ)
        if done.returncode != 0:
            raise LabError(f"switch: {' '.join(command)}: status {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def _adopt(self, directory: LabDirectory) -> None:
        self._directory = directory
        self._processes = Processes(directory.path / "pids")
        self._hosts = {spec.name: self._host(spec) for spec in self.topology.hosts}

    def _host(self, spec: HostSpec) -> Host:
        directory = self.directory
        if isinstance(spec, NodeSpec):
            return Node(spec, self._netns(spec), self._running(), directory)
        if isinstance(spec, VmSpec) and wiring.is_guest(spec):
            return GuestVm(spec, self.switch, self._running(), directory)
        return Machine(spec, self._netns(spec), self._running(), directory)

    def _build(self) -> None:
        _namespaces(self._up()).mkdir()
        netns.create(self.switch, wiring.SWITCH)
        specs = [spec for spec in self.topology.hosts if not wiring.is_guest(spec)]
        for spec in specs:
            netns.create(self._netns(spec), wiring.sysctls(spec))
        self._batch(self.switch, wiring.switch(self.topology, _namespaces(self._up())))
        guests = [host for host in self.hosts if isinstance(host, GuestVm)]
        # First, because they take longest: everything else is made while they boot.
        for guest in guests:
            guest.launch()
        for spec in specs:
            self._batch(self._netns(spec), wiring.host(spec))
        self._start_services()
        for guest in guests:
            guest.wait_until_ready()

    def _start_services(self) -> None:
        for node in self.nodes:
            node.prepare()
        agents = [node for node in self.nodes if node.spec.agent is not None]
        for node in agents:
            node.launch_agent()
        for spec in self.topology.vms:
            machine = self._hosts[spec.name]
            if spec.http and isinstance(machine, Machine):
                machine.serve_http()
        for node in agents:
            node.agent.wait_until_ready()

    def _batch(self, namespace: Path, lines: Iterable[str]) -> None:
        text = "".join(f"{line}\n" for line in lines)
        done = self._running().run(namespace, ["ip", "-batch", "-"], stdin=text, timeout=60.0, environment=os.environ)
        if done.returncode != 0:
            raise LabError(f"{namespace.name}: {done.stderr.strip()} in:\n{text}")

    def _netns(self, spec: HostSpec) -> Path:
        return _namespaces(self._up()) / spec.name

    def _up(self) -> LabDirectory:
        if self._directory is None:
            raise LabError(f"lab {self.topology.name} is not up")
        return self._directory

    def _running(self) -> Processes:
        if self._processes is None:
            raise LabError(f"lab {self.topology.name} is not up")
        return self._processes


def demolish(directory: LabDirectory) -> None:
    """Take a lab down by its directory alone: processes, namespaces with all their links, files."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(directory.building())
        except FileNotFoundError:
            return
        if not directory.path.exists():  # another `down` finished while this one waited
            return
        namespaces = tuple(_namespaces(directory).glob("*"))
        kill_members(namespaces)
        for path in namespaces:
            netns.remove(path)
        directory.remove()


def sweep() -> tuple[str, ...]:
    """Take down every lab whose process is gone; their ids."""
    orphans = tuple(lab for lab in registry.labs() if lab.orphaned)
    for lab in orphans:
        demolish(lab)
    registry.tidy()
    return tuple(lab.id for lab in orphans)


def _namespaces(directory: LabDirectory) -> Path:
    return directory.path / "netns"


def _load(topology: Topology | Mapping[str, object] | Path | str) -> Topology:
    if isinstance(topology, Topology):
        return topology
    if isinstance(topology, Mapping):
        return topology_file.from_mapping(topology)
    return topology_file.load(Path(topology))
