"""A private node for measuring: a namespace with a master on a bridge, namespaces for pods, the agent, and the plugins."""

import ctypes
import json
import os
import secrets
import shutil
import socket
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


@dataclass(slots=True, kw_only=True)
class Outcome:
    """One execution: seconds of wall time from spawn to reaped, exit status, standard output."""

    seconds: float
    status: int
    stdout: bytes


@dataclass(slots=True)
class Bed:
    """The measuring node. This process lives in its namespace from `build` on."""

    directory: Path
    prefix: str
    pods: list[str] = field(default_factory=list)
    agent: "subprocess.Popen[bytes] | None" = None

    @property
    def socket(self) -> Path:
        """The agent's."""
        return self.directory / "agent.sock"

    def add_pods(self, count: int) -> None:
        """Make `count` more empty namespaces."""
        names = [f"{self.prefix}p{len(self.pods) + index}" for index in range(count)]
        batch = "".join(f"netns add {name}\n" for name in names)
        subprocess.run(["ip", "-batch", "-"], input=batch.encode(), check=True)
        self.pods += names

    def start_agent(self) -> None:
        """Start underlayd on this node and wait until it serves."""
        config = self.directory / "agent.yaml"
        config.write_text(
            json.dumps({"node": "bench", "socket": str(self.socket), "state_dir": str(self.directory / "state"),
                        "http": False, "quarantine": "0s", "floor": "0s"})
        )
        log = (self.directory / "agent.log").open("ab")
        command = [sys.executable, "-m", "cni_underlay.agent", "--config", str(config)]
        self.agent = subprocess.Popen(command, stderr=log, stdout=log)
        log.close()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(str(self.socket)) == 0 and self.execute(self.status_plugin(), "STATUS", "", "").status == 0:
                    return
            if self.agent.poll() is not None:
                break
            time.sleep(0.02)
        tail = (self.directory / "agent.log").read_text()[-2000:]
        sys.exit(f"the agent did not start:\n{tail}")

    def stop_agent(self) -> None:
        """Stop it gracefully."""
        if self.agent is not None:
            self.agent.terminate()
            self.agent.wait(30)
            self.agent = None

    def status_plugin(self) -> Plugin:
        """A configuration whose STATUS tells that the agent serves."""
        conf = {"cniVersion": "1.1.0", "name": "probe", "type": "underlay", "master": "eth0", "ipam": {"type": "underlay-ipam", "subnet": SUBNET}}
        return Plugin(name="status", program=self.directory / "bin/underlay", conf=json.dumps(conf).encode())

    def execute(self, plugin: Plugin, verb: str, container: str, netns: str) -> Outcome:
        """Run the plugin as a runtime does and wait for it. Output goes to memory files, so that no pipe is in the way."""
        environment = {
            "CNI_COMMAND": verb, "CNI_CONTAINERID": container, "CNI_IFNAME": "eth0", "CNI_PATH": str(REFERENCE),
            "CNI_NETNS": f"/run/netns/{netns}" if netns else "", "UNDERLAY_SOCKET": str(self.socket), "PATH": "/usr/bin:/usr/sbin",
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


def plugins(bed: Bed) -> dict[str, tuple[Plugin, Plugin]]:
    """Pairs (ours, reference) of the same kind."""
    def conf(kind: str, **extra: Any) -> bytes:  # noqa: ANN401  # JSON
        return json.dumps({"cniVersion": "1.0.0", "name": f"net-{kind}", "type": kind, **extra}).encode()

    routes = [{"dst": "0.0.0.0/0"}]
    host_local = {"type": "host-local", "subnet": SUBNET, "routes": routes, "dataDir": str(bed.directory / "host-local")}
    own = {"type": "underlay-ipam", "subnet": SUBNET, "routes": routes}
    underlay = bed.directory / "bin/underlay"
    return {
        "macvlan": (
            Plugin(name="underlay macvlan", program=underlay,
                   conf=json.dumps({"cniVersion": "1.0.0", "name": "net-um", "type": "underlay", "datapath": "macvlan",
                                    "master": "eth0", "ipam": own}).encode()),
            Plugin(name="macvlan + host-local", program=REFERENCE / "macvlan", conf=conf("macvlan", master="eth0", ipam=host_local)),
        ),
        "veth": (
            Plugin(name="underlay veth", program=underlay,
                   conf=json.dumps({"cniVersion": "1.0.0", "name": "net-uv", "type": "underlay", "datapath": "veth",
                                    "master": "eth0", "ipam": own}).encode()),
            Plugin(name="ptp + host-local", program=REFERENCE / "ptp", conf=conf("ptp", ipam=host_local)),
        ),
    }


@contextmanager
def build() -> Iterator[Bed]:
    """A measuring node that leaves nothing behind; the ledger and host-local's files lie on the same disk."""
    with ExitStack() as undo:
        prefix = f"ulb{secrets.token_hex(3)}"
        base = Path(os.environ.get("UNDERLAY_BENCH_DIR", "/var/tmp"))
        directory = Path(tempfile.mkdtemp(prefix="cni-underlay-bench-", dir=base))
        undo.callback(shutil.rmtree, directory, ignore_errors=True)
        bed = Bed(directory=directory, prefix=prefix)
        undo.callback(_remove_namespaces, prefix)
        (directory / "bin").mkdir()
        for name in ("underlay", "underlay-ipam"):
            shutil.copy2(client.path(), directory / "bin" / name)
        _make_node(prefix)
        descriptor = os.open(f"/run/netns/{prefix}n", os.O_RDONLY | os.O_CLOEXEC)
        own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        _setns(descriptor)
        undo.callback(_setns, own)
        undo.callback(bed.stop_agent)
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
