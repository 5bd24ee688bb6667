"""A node's own `underlayd`: its configuration, its start until it says that it is ready, its end."""

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import yaml

from cni_underlay.lab.errors import LabError
from cni_underlay.lab.process import Processes, ProcessId, tail

_READY_WITHIN = 30.0
_LOOK_EVERY = 0.1


class AgentProcess:
    """The agent of one node. Everything it owns is in one directory, everything it does in the node's namespace."""

    def __init__(self, node: str, netns: Path, processes: Processes, directory: Path) -> None:
        self._node = node
        self._netns = netns
        self._processes = processes
        self._name = f"agent.{node}"
        self._notify_path = directory / "notify"
        self._notify: socket.socket | None = None
        self.config = directory / "agent.yaml"
        self.socket = directory / "agent.sock"
        self.state_dir = directory / "state"
        self.log = directory / "agent.log"

    @property
    def process(self) -> ProcessId | None:
        """The running agent, or None."""
        return self._processes.find(self._name)

    def configure(self, settings: Mapping[str, object]) -> None:
        """Write agent.yaml: `settings`, and what the lab decides. A running agent takes it on `reload`."""
        generated = {"node": self._node, "socket": str(self.socket), "state_dir": str(self.state_dir)}
        self.state_dir.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump({**settings, **generated}, sort_keys=False)
        # Whole or not at all: a reload may come at any time.
        written = self.config.with_suffix(".new")
        written.write_text(text, encoding="utf-8")
        written.replace(self.config)

    def start(self, environment: Mapping[str, str]) -> None:
        """Start the agent, without waiting for it: `wait_until_ready` does."""
        if self.process is not None:
            raise LabError(f"the agent of {self._node} runs already")
        self.stop_listening()
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(self._notify_path))
        self._processes.start(
            self._name,
            self._netns,
            [sys.executable, "-m", "cni_underlay.agent", "--config", str(self.config)],
            output=self.log,
            environment={**environment, "NOTIFY_SOCKET": str(self._notify_path)},
        )

    def wait_until_ready(self, within: float = _READY_WITHIN) -> None:
        """Wait for READY=1 (sd_notify(3)); `LabError` with the end of its log where it dies or stays silent."""
        if self._notify is None:
            raise LabError(f"the agent of {self._node} was not started here")
        deadline = time.monotonic() + within
        try:
            while not _hears_ready(self._notify):
                if self.process is None:
                    raise LabError(f"the agent of {self._node} died:\n{tail(self.log)}")
                if time.monotonic() > deadline:
                    raise LabError(f"the agent of {self._node} is not ready within {within:g} s:\n{tail(self.log)}")
        finally:
            self.stop_listening()

    def stop_listening(self) -> None:
        """Wait for READY=1 no more."""
        if self._notify is not None:
            self._notify.close()
            self._notify = None
        self._notify_path.unlink(missing_ok=True)

    def reload(self) -> None:
        """SIGHUP."""
        self._processes.send(self._name, signal.SIGHUP)

    def stop(self) -> None:
        """SIGTERM, and wait for its end."""
        self._processes.end(self._name, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self._processes.end(self._name, signal.SIGKILL)


def _hears_ready(notify: socket.socket) -> bool:
    readable, _, _ = select.select([notify], [], [], _LOOK_EVERY)
    # Descriptors that come along (FDSTORE=1) are closed by the kernel, since nobody takes them.
    return bool(readable) and b"READY=1" in notify.recv(4096).splitlines()


def environment(base: Mapping[str, str]) -> dict[str, str]:
    """`base`, in which this very package and this interpreter's commands are found, installed or not."""
    package_root = Path(__file__).resolve().parents[2]
    return {
        **base,
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), base.get("PATH", os.defpath))),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(package_root), base.get("PYTHONPATH", "")))),
    }
