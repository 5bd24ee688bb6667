"""Runs and removes pods as the kubelet does."""

import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from uuid import uuid4

from cni_underlay.lab import netns
from cni_underlay.records import IPAddress

from .containerd import Containerd
from .cri import HostPort, Output, Pod
from .images import APP, SERVE
from .waiting import wait_until


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningPod:
    """A sandbox with its network. `netns` can be entered from outside of containerd's namespaces."""

    pod: Pod
    sandbox: str
    addresses: tuple[IPAddress, ...]
    netns: Path

    @property
    def address(self) -> IPAddress:
        """What Kubernetes calls the pod's IP."""
        return self.addresses[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server(RunningPod):
    """A pod whose container answers HTTP on port 80."""

    container: str


class Kubelet:
    """One node's kubelet, as far as sandboxes and containers go."""

    def __init__(self, runtime: Containerd) -> None:
        self.runtime = runtime

    def pod(self, handler: str = "", host_ports: Sequence[HostPort] = ()) -> Pod:
        """A pod that nobody runs yet; an empty `handler` (the kubelet's RuntimeClass) is the default one."""
        uid = str(uuid4())
        return Pod(
            name=f"web-{uid[:8]}",
            uid=uid,
            cgroup_parent=self.runtime.cgroup,
            handler=handler,
            host_ports=tuple(host_ports),
        )

    def run(self, pod: Pod) -> RunningPod:
        """Run the pod's sandbox; raises `CriError` when the runtime, or its network plugin, refuses."""
        cri = self.runtime.cri
        sandbox = cri.run_sandbox(pod)
        status = cri.sandbox_status(sandbox)
        addresses = tuple(ip_address(ip) for ip in status.ips)
        return RunningPod(pod=pod, sandbox=sandbox, addresses=addresses, netns=Path(status.netns))

    def serve(self, pod: Pod) -> Server:
        """Run the pod with one container that serves `whoami`, and wait until it does."""
        return self.start_server(self.run(pod))

    def start_server(self, ran: RunningPod) -> Server:
        """Start the serving container in a pod that has none (any more), and wait until it serves."""
        container = self.runtime.cri.start_container(ran.sandbox, ran.pod, APP, SERVE)
        wait_until(lambda: netns.inside(ran.netns, _listens), f"nobody listens in {ran.pod.name}")
        return Server(pod=ran.pod, sandbox=ran.sandbox, addresses=ran.addresses, netns=ran.netns, container=container)

    def execute(self, server: Server, *command: str) -> Output:
        """Run a command in the pod's container."""
        return self.runtime.cri.execute(server.container, *command)

    def fetch(self, server: Server, address: IPAddress, port: int = 80) -> str:
        """The page that an HTTP server elsewhere shows the pod's container."""
        place = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
        # Not wget's own -T: with it busybox 1.35 crashes. `execute` ends what hangs.
        page = self.execute(server, "wget", "-q", "-O", "-", f"http://{place}/")
        if page.status != 0:
            raise ConnectionError(f"{server.pod.name} gets nothing from {place}: status {page.status} {page.stderr}")
        return page.stdout

    def stop(self, pod: RunningPod) -> None:
        """Stop the sandbox: its network is taken down, its record stays."""
        self.runtime.cri.stop_sandbox(pod.sandbox)

    def remove(self, pod: RunningPod) -> None:
        """Stop and remove the sandbox with its containers."""
        self.runtime.cri.stop_sandbox(pod.sandbox)
        self.runtime.cri.remove_sandbox(pod.sandbox)

    def remove_all(self) -> None:
        """Remove every sandbox the runtime knows, ready or not."""
        cri = self.runtime.cri
        with ThreadPoolExecutor(max_workers=16) as threads:
            list(threads.map(cri.stop_sandbox, sandboxes := cri.sandboxes()))
            list(threads.map(cri.remove_sandbox, sandboxes))


def _listens() -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", 80)) == 0
