"""The agent as a process: started in its node's namespace, waited for, asked, stopped or killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from cni_underlay.agent import protocol
from cni_underlay.errors import DecodingError

from .node import POOLS, Node

SECONDS = 30.0


def await_true(condition: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
    """Return once the condition holds; an assertion error that names `what` when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.002)


@dataclass(slots=True, kw_only=True)
class Agent:
    """One agent and its configuration. `settings` become agent.yaml's keys, beside those that the node decides."""

    node: Node
    name: str = "agent"
    settings: dict[str, Any] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def config(self) -> Path:
        return self.node.directory / f"{self.name}.yaml"

    @property
    def log_path(self) -> Path:
        return self.node.directory / f"{self.name}.log"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def configure(self, **settings: Any) -> None:
        """Write agent.yaml with these keys changed."""
        self.settings |= settings
        document = {
            "node": "node-1",
            "socket": str(self.node.socket),
            "state_dir": str(self.node.ledger.parent),
            "http": False,
            "pools": POOLS,
            **self.settings,
        }
        written = self.config.with_suffix(".new")  # whole or not at all: a reload may come at any time
        written.write_text(json.dumps(document))  # JSON is YAML
        written.replace(self.config)

    def launch(
        self, *prefix: str, environment: Mapping[str, str] | None = None, **options: Any
    ) -> "subprocess.Popen[bytes]":
        """Start it and wait for nothing. `prefix` is a command that executes the rest of its arguments."""
        if not self.config.exists():
            self.configure()
        command = [*prefix, sys.executable, "-m", "cni_underlay.agent", "--config", str(self.config)]
        variables = {**os.environ, **(environment or {})}
        with self.log_path.open("ab") as log:
            settings = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "cwd": "/", "env": variables}
            self.process = self.node.inside(lambda: subprocess.Popen(command, **(settings | options)))
        return self.process

    def start(self, *prefix: str, environment: Mapping[str, str] | None = None, **options: Any) -> None:
        """Start it and wait until it serves."""
        process = self.launch(*prefix, environment=environment, **options)
        await_true(
            lambda: process.poll() is not None or self.serves(), f"the agent serves\n{self.log_path.read_text()}"
        )
        assert process.poll() is None, f"the agent ended with {process.returncode}\n{self.log_path.read_text()}"

    def serves(self) -> bool:
        try:
            return bool(self.ask("version"))
        except (OSError, DecodingError):
            return False

    def ask(self, command: str, **query: Any) -> Any:
        """An admin's question."""
        frame = protocol.request(protocol.KIND_ADMIN, {}, json.dumps({"command": command, **query}).encode())
        with self.connect() as connection:
            connection.sendall(frame)
            answer = protocol.receive_answer(connection)
        assert answer.status == 0, answer.stdout
        return json.loads(answer.stdout)

    def connect(self, seconds: float = SECONDS) -> socket.socket:
        """A connection to its socket."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(seconds)
        try:
            connection.connect(self.settings.get("socket", str(self.node.socket)))
        except BaseException:
            connection.close()
            raise
        return connection

    def leases(self) -> list[dict[str, Any]]:
        leases: list[dict[str, Any]] = self.ask("leases")
        return leases

    def log(self, message: str = "") -> list[dict[str, Any]]:
        """The lines of its log so far, those with this message where one is given."""
        whole, _, _begun = self.log_path.read_text().rpartition("\n")
        lines = [json.loads(line) for line in filter(None, whole.split("\n"))]
        return [line for line in lines if message in ("", line["msg"])]

    def await_log(self, message: str, count: int = 1) -> list[dict[str, Any]]:
        """The lines with this message, once there are `count` of them."""
        await_true(lambda: len(self.log(message)) >= count, f"{message!r} in the log")
        return self.log(message)

    def reload(self) -> None:
        """SIGHUP."""
        os.kill(self.pid, signal.SIGHUP)

    def stop(self) -> int:
        """SIGTERM, and its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(SECONDS)

    def kill(self) -> None:
        """SIGKILL; no effect where it has ended."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(SECONDS)

    def failure(self, *prefix: str) -> str:
        """What it says on standard error when it refuses to start; asserts that it does, and quickly."""
        done = subprocess.run(
            [*prefix, sys.executable, "-m", "cni_underlay.agent", "--config", str(self.config)],
            capture_output=True,
            text=True,
            cwd="/",
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 1, done
        assert "Traceback" not in done.stderr
        return done.stderr


@dataclass(slots=True)
class ServiceManager:
    """The other end of NOTIFY_SOCKET: what a service manager is told, and the descriptors it keeps."""

    path: Path
    states: list[str] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    _socket: socket.socket = field(default_factory=lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))

    def __post_init__(self) -> None:
        self._socket.bind(str(self.path))
        self._socket.settimeout(SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        for descriptor in self.descriptors:
            os.close(descriptor)

    def await_state(self, state: str) -> dict[str, str]:
        """The variables of the next message that has this one, "KEY=VALUE" or only "KEY"."""
        while True:
            text, descriptors, _, _ = socket.recv_fds(self._socket, 4096, 4)
            self.descriptors += descriptors
            lines = text.decode().splitlines()
            self.states += lines
            if any(line == state or line.partition("=")[0] == state for line in lines):
                return dict(line.split("=", 1) for line in lines)

    @property
    def environment(self) -> dict[str, str]:
        return {"NOTIFY_SOCKET": str(self.path)}
