"""A delegate that says what it is told, and writes down how it was called."""

import json
import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from .kinds import Json

# The environment may hold the CNI_ variables alone, so every program is named by its path.
_SCRIPT = """#!/bin/sh
d={directory}
echo "$CNI_COMMAND" >> "$d/calls"
/bin/cat > "$d/$CNI_COMMAND.stdin"
/usr/bin/env -0 > "$d/$CNI_COMMAND.environment"
if [ -p "$d/$CNI_COMMAND.gate" ]; then
    echo here > "$d/$CNI_COMMAND.waiting"
    /bin/cat "$d/$CNI_COMMAND.gate" > /dev/null
fi
if [ -e "$d/$CNI_COMMAND.stderr" ]; then /bin/cat "$d/$CNI_COMMAND.stderr" >&2; fi
if [ -e "$d/$CNI_COMMAND.stdout" ]; then /bin/cat "$d/$CNI_COMMAND.stdout"; fi
if [ -e "$d/$CNI_COMMAND.signal" ]; then kill -s "$(/bin/cat "$d/$CNI_COMMAND.signal")" $$; fi
if [ -e "$d/$CNI_COMMAND.status" ]; then exit "$(/bin/cat "$d/$CNI_COMMAND.status")"; fi
"""


@dataclass(slots=True, kw_only=True)
class Stub:
    """An executable in a plugin directory; without instructions every verb succeeds and prints nothing."""

    name: str
    bin_dir: Path
    directory: Path
    held: list[str] = field(default_factory=list)

    def install(self) -> "Stub":
        self.directory.mkdir(parents=True)
        program = self.bin_dir / self.name
        program.write_text(_SCRIPT.format(directory=shlex.quote(str(self.directory))))
        program.chmod(0o755)
        return self

    def says(self, verb: str, stdout: Json = "", *, stderr: str = "", status: int = 0, signal: str = "") -> "Stub":
        """What the verb answers from here on; `stdout` that is no text becomes JSON."""
        text = stdout if isinstance(stdout, str | bytes) else json.dumps(stdout)
        for suffix, content in (("stdout", text), ("stderr", stderr), ("status", str(status)), ("signal", signal)):
            path = self.directory / f"{verb}.{suffix}"
            path.unlink(missing_ok=True)
            if content:
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return self

    def fails(self, verb: str, code: int = 77, message: str = "the stub refuses", details: str = "") -> "Stub":
        answer = {"cniVersion": "1.0.0", "code": code, "msg": message, "details": details}
        return self.says(verb, answer, status=1)

    def hold(self, verb: str) -> None:
        """The verb's next calls stop after they have read their input, until `release`."""
        for suffix in ("gate", "waiting"):
            os.mkfifo(self.directory / f"{verb}.{suffix}")
        self.held.append(verb)

    def arrived(self, verb: str) -> None:
        """Return when a call stands at the gate."""
        assert (self.directory / f"{verb}.waiting").read_text() == "here\n"

    def release(self, verb: str) -> None:
        """Let the call at the gate go, and hold nobody any more."""
        gate, waiting = (self.directory / f"{verb}.{suffix}" for suffix in ("gate", "waiting"))
        # Both ends, so that neither opening waits for anybody.
        descriptors = [os.open(path, os.O_RDWR | os.O_NONBLOCK) for path in (gate, waiting)]
        gate.unlink()
        waiting.unlink()
        for descriptor in descriptors:
            os.close(descriptor)
        self.held.remove(verb)

    @property
    def calls(self) -> list[str]:
        path = self.directory / "calls"
        return path.read_text().split() if path.exists() else []

    def forget(self) -> None:
        (self.directory / "calls").unlink(missing_ok=True)

    def stdin(self, verb: str) -> bytes:
        return (self.directory / f"{verb}.stdin").read_bytes()

    def environment(self, verb: str) -> dict[str, str]:
        block = (self.directory / f"{verb}.environment").read_bytes()
        pairs = (entry.partition(b"=") for entry in block.split(b"\0") if entry)
        return {key.decode(): value.decode("utf-8", "surrogateescape") for key, _, value in pairs}
