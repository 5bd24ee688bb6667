"""A Kubernetes node of the lab: a namespace with its agent and its pods."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cni_underlay import client
from cni_underlay.errors import UnderlayError
from cni_underlay.lab import agent, runtime
from cni_underlay.lab.agent import AgentProcess
from cni_underlay.lab.errors import LabError
from cni_underlay.lab.host import NamespaceHost
from cni_underlay.lab.pod import Pod
from cni_underlay.lab.process import Processes
from cni_underlay.lab.runtime import Json
from cni_underlay.lab.topology import NodeSpec
from cni_underlay.records import IPAddress

_POD_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_PLUGINS = ("underlay", "underlay-ipam")
# The client gives up after 55 s by itself; whoever waits for it must wait longer.
_CALL_TIMEOUT = 90.0


class Node(NamespaceHost):
    """Runs commands in the node's namespace, with UNDERLAY_SOCKET set to its agent's socket."""

    def __init__(self, spec: NodeSpec, netns_path: Path, processes: Processes, lab_directory: Path) -> None:
        super().__init__(spec.name, netns_path, processes, lab_directory / "nodes" / spec.name)
        self.spec = spec
        self.agent = AgentProcess(spec.name, netns_path, processes, self.directory)
        self._pods: dict[str, Pod] = {}

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        return tuple(address.ip for address in self.spec.addresses)

    @property
    def environment(self) -> Mapping[str, str]:
        return {**agent.environment(super().environment), "UNDERLAY_SOCKET": str(self.agent.socket)}

    def prepare(self) -> None:
        """Write the agent's configuration, where the topology has one."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.spec.agent is not None:
            self.agent.configure(self.spec.agent)

    def start_agent(self) -> None:
        """Start the agent and wait until it is ready; raises `LabError` with the end of its log."""
        self.launch_agent()
        self.agent.wait_until_ready()

    def launch_agent(self) -> None:
        """Start the agent without waiting, so that several can start at once."""
        if not self.agent.config.exists():
            raise LabError(f"node {self.name} has no agent: the topology says `agent: false`")
        self.agent.start(self.environment)

    def stop_agent(self) -> None:
        """Stop the agent as systemd does, with SIGTERM."""
        self.agent.stop()

    def kill_agent(self) -> None:
        """Kill the agent (SIGKILL), as the kernel does when memory runs out."""
        self.agent.kill()

    @property
    def pools(self) -> tuple[str, ...]:
        """Names of the pools that the topology gives this node."""
        pools = (self.spec.agent or {}).get("pools", ())
        return tuple(str(pool["name"]) for pool in pools) if isinstance(pools, list) else ()

    def conflist(self, datapath: str = "veth", options: Mapping[str, object] | None = None) -> Json:
        """A configuration list for this node's pools; `options` are further keys (`mode`, `mtu`)."""
        return runtime.conflist(datapath, self.pools, options)

    def pod(self, name: str) -> Pod:
        """The pod of that name on this node; its sandbox is made on first use."""
        if name not in self._pods:
            self._pods[name] = Pod(
                name,
                directory=self._pod_directory(name),
                netns_path=self.netns.with_name(f"{self.name}.{name}"),
                processes=self._processes,
                execute=self.execute,
                plugins=self._plugins(),
            )
        return self._pods[name]

    def existing_pod(self, name: str) -> Pod:
        """The pod of that name, or `LabError` where nobody made it."""
        if not self._pod_directory(name).joinpath("pod.json").exists():
            raise LabError(f"node {self.name} has no pod {name!r}")
        return self.pod(name)

    def remove_pod(self, name: str) -> None:
        """Take a pod's sandbox away; plugins are not asked (see `Pod.delete`)."""
        self.existing_pod(name).remove()
        del self._pods[name]

    def pods(self) -> tuple[Pod, ...]:
        """Every pod of this node, also those that another process made."""
        return tuple(self.pod(path.parent.name) for path in sorted(self.directory.glob("pods/*/pod.json")))

    def cni(self, verb: str, conf: Json, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """One raw call that concerns no pod (VERSION, STATUS, GC)."""
        environment = {"CNI_COMMAND": verb, "CNI_PATH": runtime.search_path(str(self._plugins())), **(env or {})}
        return runtime.call(self.execute, conf, environment)

    def execute(self, argv: Sequence[str], cni: Mapping[str, str], stdin: str) -> subprocess.CompletedProcess[str]:
        """Execute a plugin as a runtime on this node does."""
        environment = {**self.environment, **cni}
        return self._processes.run(self.netns, argv, stdin=stdin, timeout=_CALL_TIMEOUT, environment=environment)

    def _pod_directory(self, name: str) -> Path:
        if not _POD_NAME.fullmatch(name):
            raise LabError(f"{name!r} is no name for a pod (lower-case letters, digits, '.', '-')")
        return self.directory / "pods" / name

    def _plugins(self) -> Path:
        # The client tells its two roles apart by the name it is executed under, so links are enough.
        directory = self.directory / "bin"
        directory.mkdir(parents=True, exist_ok=True)
        for name in _PLUGINS:
            link = directory / name
            with suppress(FileExistsError):
                link.symlink_to(_client())
        return directory


def _client() -> Path:
    try:
        return client.path()
    except UnderlayError as error:
        raise LabError(str(error)) from error
