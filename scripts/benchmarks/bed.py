"""A private node for measuring: a namespace with a master on a bridge, namespaces for pods, agents, plugins."""

import ctypes
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cni_underlay import client

REFERENCE = Path("/usr/lib/cni")
CLONE_NEWNET = 0x40000000
SUBNET = "10.99.0.0/16"
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """One contestant: a name for the table, the executable, and its configuration."""

    name: str
    program: Path
    conf: bytes
    socket: Path


@dataclass(slots=True, kw_only=True)
class Outcome:
    """One execution: seconds of wall time from spawn to reaped, exit status, standard output."""

    seconds: float
    status: int
    stdout: bytes


@dataclass(slots=True)
class Agent:
    """One underlayd with a directory of its own."""

    directory: Path
    process: "subprocess.Popen[bytes]"

    @property
    def socket(self) -> Path:
        """Where it serves."""
        return self.directory / "agent.sock"

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def stop(self) -> None:
        """Stop it gracefully."""
        self.process.terminate()
        self.process.wait(30)


@dataclass(slots=True)
class Bed:
    """The measuring node. This process lives in its namespace from `build` on."""

    directory: Path
    prefix: str
    undo: ExitStack
    pods: list[str] = field(default_factory=list)

    def add_pods(self, count: int) -> None:
        """Make `count` more empty namespaces."""
        names = [f"{self.prefix}p{len(self.pods) + index}" for index in range(count)]
        batch = "".join(f"netns add {name}\n" for name in names)
        subprocess.run(["ip", "-batch", "-"], input=batch.encode(), check=True)
        self.pods += names

    def start_agent(self, name: str) -> Agent:
        """Start an underlayd on this node and wait until it serves; it is stopped with the bed."""
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        config = directory / "agent.yaml"
        document = {"node": "bench", "socket": str(directory / "agent.sock"), "state_dir": str(directory / "state")}
        config.write_text(json.dumps({**document, "http": False, "quarantine": "0s", "floor": "0s"}))
        command = [sys.executable, "-m", "cni_underlay.agent", "--config", str(config)]
        with (directory / "agent.log").open("ab") as log:
            agent = Agent(directory, subprocess.Popen(command, stderr=log, stdout=log))
        self.undo.callback(agent.stop)
        status = {
            "cniVersion": "1.1.0",
            "name": "probe",
            "type": "underlay",
            "master": "eth0",
            "ipam": own_ipam(SUBNET),
        }
        probe = plugin(self, "status", "underlay", status, agent.socket)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and agent.process.poll() is None:
            if agent.socket.exists() and self.execute(probe, "STATUS", "", "").status == 0:
                return agent
            time.sleep(0.02)
        tail = (directory / "agent.log").read_text()[-2000:]
        sys.exit(f"the agent did not start:\n{tail}")

    def execute(self, plugin: Plugin, verb: str, container: str, netns: str) -> Outcome:
        """Run the plugin as a runtime does and wait. Output goes to memory files, so that no pipe is in the way."""
        environment = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(REFERENCE),
            "CNI_NETNS": f"/run/netns/{netns}" if netns else "",
            "UNDERLAY_SOCKET": str(plugin.socket),
            "PATH": "/usr/bin:/usr/sbin",
        }
        stdin, stdout = os.memfd_create("in"), os.memfd_create("out")
        try:
            os.write(stdin, plugin.conf)
            os.lseek(stdin, 0, os.SEEK_SET)
            actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)]
            start = time.perf_counter()
            pid = os.posix_spawn(plugin.program, [plugin.program.name], environment, file_actions=actions)
            _, status = os.waitpid(pid, 0)
            seconds = time.perf_counter() - start
            return Outcome(seconds=seconds, status=status, stdout=os.pread(stdout, 1 << 20, 0))
        finally:
            os.close(stdin)
            os.close(stdout)


def own_ipam(subnet: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401  # JSON
    """An `ipam` block of ours."""
    return {"type": "underlay-ipam", "subnet": subnet, **more}


def plugin(bed: Bed, name: str, program: str, conf: dict[str, Any], socket_path: Path | None = None) -> Plugin:
    """Ours with a socket, the reference's without."""
    directory = REFERENCE if socket_path is None else bed.directory / "bin"
    encoded = json.dumps({"cniVersion": "1.0.0", **conf}).encode()
    return Plugin(name=name, program=directory / program, conf=encoded, socket=socket_path or Path("/nonexistent"))


def plugins(bed: Bed, agent: Agent) -> dict[str, tuple[Plugin, Plugin]]:
    """Pairs (ours, reference) of the same kind, each with a default route."""
    routes = [{"dst": "0.0.0.0/0"}]
    host_local = {
        "type": "host-local",
        "subnet": SUBNET,
        "routes": routes,
        "dataDir": str(bed.directory / "host-local"),
    }

    def ours(datapath: str) -> Plugin:
        conf = {"name": f"net-{datapath}", "type": "underlay", "datapath": datapath, "master": "eth0"}
        ipam = own_ipam(SUBNET, routes=routes)
        return plugin(bed, f"underlay {datapath}", "underlay", {**conf, "ipam": ipam}, agent.socket)

    def reference(kind: str, **more: str) -> Plugin:
        conf = {"name": f"net-{kind}", "type": kind, **more, "ipam": host_local}
        return plugin(bed, f"{kind} + host-local", kind, conf)

    return {"macvlan": (ours("macvlan"), reference("macvlan", master="eth0")), "veth": (ours("veth"), reference("ptp"))}


@contextmanager
def build() -> Iterator[Bed]:
    """A measuring node that leaves nothing behind; the ledger and host-local's files lie on the same disk."""
    with ExitStack() as undo:
        prefix = f"ulb{secrets.token_hex(3)}"
        base = Path(os.environ.get("UNDERLAY_BENCH_DIR", "/var/tmp"))  # noqa: S108  # a disk, where /tmp may be memory
        directory = Path(tempfile.mkdtemp(prefix="cni-underlay-bench-", dir=base))
        undo.callback(shutil.rmtree, directory, ignore_errors=True)
        bed = Bed(directory=directory, prefix=prefix, undo=undo)
        undo.callback(_remove_namespaces, prefix)
        (directory / "bin").mkdir()
        for name in ("underlay", "underlay-ipam"):
            shutil.copy2(client.path(), directory / "bin" / name)
        _make_node(prefix)
        descriptor = os.open(f"/run/netns/{prefix}n", os.O_RDONLY | os.O_CLOEXEC)
        own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        _setns(descriptor)
        undo.callback(_setns, own)
        yield bed


def _make_node(prefix: str) -> None:
    node, switch = f"{prefix}n", f"{prefix}s"
    subprocess.run(["ip", "netns", "add", node], check=True)
    subprocess.run(["ip", "netns", "add", switch], check=True)
    batches: Mapping[str, str] = {
        switch: "link set lo up\nlink add br0 type bridge\nlink set br0 up\n"
        f"link add port0 type veth peer name eth0 netns {node}\nlink set port0 master br0 up\n",
        node: "link set lo up\nlink set eth0 up\naddr add 10.99.255.254/16 dev eth0\n",
    }
    for namespace, batch in batches.items():
        subprocess.run(["ip", "-n", namespace, "-batch", "-"], input=batch.encode(), check=True)


def _remove_namespaces(prefix: str) -> None:
    for entry in Path("/run/netns").glob(f"{prefix}*"):
        subprocess.run(["ip", "netns", "del", entry.name], check=False)


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
