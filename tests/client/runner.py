"""Starts the client with an environment of nothing but what a test says."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypedDict, Unpack

Stream = int | IO[bytes]


class Process(TypedDict, total=False):
    """How a call is started. `prelude` is shell text that prepares the process, which then becomes the client."""

    argv: tuple[str | bytes, ...]
    prelude: str
    stdin: Stream
    stdout: Stream
    stderr: Stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    binary: Path
    socket: Path

    def environment(self, command: str, extra: dict[str, str] | None = None) -> dict[str, str]:
        return {"CNI_COMMAND": command, "UNDERLAY_SOCKET": str(self.socket)} | (extra or {})

    def start(
        self, command: str, env: dict[str, str] | None = None, **process: Unpack[Process]
    ) -> subprocess.Popen[bytes]:
        prelude = process.get("prelude")
        return subprocess.Popen(
            ["sh", "-ec", f'{prelude}\nexec "$0"', self.binary] if prelude else process.get("argv", ("underlay",)),
            executable=None if prelude else self.binary,
            env=self.environment(command, env),
            stdin=process.get("stdin", subprocess.PIPE),
            stdout=process.get("stdout", subprocess.PIPE),
            stderr=process.get("stderr", subprocess.PIPE),
        )

    def __call__(
        self, command: str, body: bytes = b"{}", env: dict[str, str] | None = None, **process: Unpack[Process]
    ) -> subprocess.CompletedProcess[bytes]:
        """One call from start to end."""
        with self.start(command, env, **process) as running:
            try:
                out, err = running.communicate(body if running.stdin else None, timeout=60)
            finally:
                running.kill()
        return subprocess.CompletedProcess(running.args, running.returncode, out, err)

    def failure(
        self, command: str, body: bytes = b"{}", env: dict[str, str] | None = None, **process: Unpack[Process]
    ) -> dict[str, Any]:
        """The JSON error of a call that fails, checked for what holds of each."""
        done = self(command, body, env, **process)
        assert done.returncode == 1
        assert done.stderr == b""
        assert done.stdout.endswith(b"}\n")
        error: dict[str, Any] = json.loads(done.stdout.decode("utf-8", "strict"))
        assert list(error) == ["cniVersion", "code", "msg", "details"]
        assert error["cniVersion"] == "1.1.0"
        assert error["msg"]
        # go-cni takes a failed DEL whose text holds one of these for a success.
        assert "not found" not in done.stdout.decode().lower()
        assert "no such file or directory" not in done.stdout.decode().lower()
        return error
