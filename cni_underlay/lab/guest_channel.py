"""Commands into a running guest: one line to it, one line back, over a virtio-serial port that is two FIFOs here.

FIFOs, because QEMU keeps its ends open: to the guest a port never looks disconnected, however many processes come and
go on this side. There are several ports, so that several processes can have a command running; each port is locked
while it is used. The guest's end is `channel` in guest_init.sh.
"""

import fcntl
import os
import secrets
import select
import shlex
import subprocess
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cni_underlay.lab.errors import GuestError

PORTS = 4
_PAUSE = 0.02
_CHUNK = 65536
_KILLED = 137  # what `timeout -s KILL` leaves


def make(directory: Path) -> list[str]:
    """Make the FIFOs, afresh for each boot; the chardev options that give them to QEMU."""
    for number in range(PORTS):
        for end in ("in", "out"):
            path = directory / f"channel{number}.{end}"
            path.unlink(missing_ok=True)
            os.mkfifo(path, 0o600)
    return [f"pipe,path={directory / f'channel{number}'}" for number in range(PORTS)]


def run(directory: Path, argv: Sequence[str], *, stdin: str, timeout: float) -> subprocess.CompletedProcess[str]:
    """Run a command in the guest.

    Raises `subprocess.TimeoutExpired` (the guest kills the command by itself) and `GuestError` where no guest runs.
    """
    call = _Call(argv=tuple(argv), timeout=timeout, deadline=time.monotonic() + timeout)
    with _free_port(directory, call) as port:
        identity = secrets.token_hex(8)
        # Rounded up, and at least as long as the caller waits: what counts is the caller's clock.
        seconds = int(timeout) + 1
        line = f"{identity} {seconds} {_pack(stdin)} {_pack(f'exec {shlex.join(argv)}')}\n"
        _write(port.writer, line.encode(), call)
        _, status, output, errors = _answer(port.reader, identity, call).split(" ")
    return subprocess.CompletedProcess(argv, int(status), _unpack(output), _unpack(errors))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    argv: tuple[str, ...]
    timeout: float
    deadline: float

    def require_time(self) -> float:
        """Seconds left."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise subprocess.TimeoutExpired(self.argv, self.timeout)
        return left


@dataclass(frozen=True, slots=True, kw_only=True)
class _Port:
    writer: int
    reader: int


@contextmanager
def _free_port(directory: Path, call: _Call) -> Iterator[_Port]:
    while True:
        for number in range(PORTS):
            with _port(directory / f"channel{number}") as port:
                if _locked(port.writer):
                    yield port
                    return
        time.sleep(min(_PAUSE, call.require_time()))


@contextmanager
def _port(path: Path) -> Iterator[_Port]:
    try:
        writer = os.open(f"{path}.in", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:  # ENXIO: nobody reads it
        raise GuestError(f"the guest does not run ({error.strerror}: {path}.in)") from error
    try:
        reader = os.open(f"{path}.out", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            yield _Port(writer=writer, reader=reader)
        finally:
            os.close(reader)
    finally:
        os.close(writer)


def _locked(writer: int) -> bool:
    try:
        fcntl.flock(writer, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(writer: int, data: bytes, call: _Call) -> None:
    while data:
        _, writable, _ = select.select([], [writer], [], call.require_time())
        if writable:
            data = data[os.write(writer, data[:_CHUNK]) :]


def _answer(reader: int, identity: str, call: _Call) -> str:
    """The line that answers `identity`; other lines answer somebody who gave up waiting."""
    received = b""
    while True:
        *lines, received = received.split(b"\n")
        for line in lines:
            if line.startswith(identity.encode()):
                return line.decode()
        readable, _, _ = select.select([reader], [], [], call.require_time())
        chunk = os.read(reader, _CHUNK) if readable else b""
        if readable and not chunk:
            raise GuestError("the guest ended while a command ran")
        received += chunk


def _pack(text: str) -> str:
    # The underscore keeps an empty field a field.
    return "_" + b64encode(text.encode()).decode()


def _unpack(field: str) -> str:
    return b64decode(field.removeprefix("_")).decode(errors="replace")
