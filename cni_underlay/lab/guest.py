"""Commands on the kernel of Debian: `python -m cni_underlay.lab.guest run -- CMD...`.

The guest sees the files of this machine, read-only under a layer of memory; /run, /tmp, /proc, /sys and /dev are its
own. So the same virtual environment works at the same path, on a kernel that has ipvlan, 8021q, bonding and the rest.
"""

import argparse
import contextlib
import os
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cni_underlay.lab.errors import GuestError, LabError
from cni_underlay.lab.guest_hardware import Hardware, command_line, files_of_this_machine
from cni_underlay.lab.guest_initramfs import initramfs
from cni_underlay.lab.guest_kernel import kernel
from cni_underlay.lab.process import tail

# A command can tell by it that it runs in a guest.
IN_GUEST = "UNDERLAY_GUEST"
TIMED_OUT = 124  # as timeout(1)
_MEMORY_MIB = 768
_TIMEOUT = 600.0
_BOOT_WITHIN = 120.0
_CHUNK = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A command for a guest.

    `memory` (MiB) holds also every file that the command writes; `timeout` is in seconds, the boot not included.
    """

    argv: Sequence[str]
    environment: Mapping[str, str]
    cwd: Path
    memory: int = _MEMORY_MIB
    timeout: float = _TIMEOUT


def run(job: Job, stdout: IO[bytes], stderr: IO[bytes]) -> int:
    """Boot a guest for one command, stream its output, and return its exit status, or 124 after the timeout.

    Raises `GuestError` with the end of the console where the guest did not come as far as the command's end.
    """
    progress = _Progress()
    with tempfile.TemporaryDirectory(prefix="underlay-guest-") as temporary, contextlib.ExitStack() as stack:
        directory = Path(temporary)
        (directory / "command").write_text(_script(job), encoding="utf-8")
        sinks = (_writer(stdout), _writer(stderr), progress.take)
        streams = tuple(stack.enter_context(contextlib.closing(_Stream(sink))) for sink in sinks)
        _execute(command_line(_hardware(job, directory, streams)), streams, lambda: progress.wait(job.timeout))
        if progress.timed_out:
            return TIMED_OUT
        if progress.status is None:
            raise GuestError(f"the guest ended without the command's status:\n{tail(directory / 'serial.log')}")
    return progress.status


class _Progress:
    """What the guest says about the command: a line when it begins, a line with its status."""

    def __init__(self) -> None:
        self._received = b""
        self._begun = threading.Event()
        self._ended = threading.Event()
        self.timed_out = False

    @property
    def status(self) -> int | None:
        lines = self._received.split()
        return int(lines[1]) if len(lines) > 1 and self._received.endswith(b"\n") else None

    def take(self, data: bytes) -> None:
        """More of it; nothing means that there will be no more."""
        self._received += data
        if b"\n" in self._received or not data:
            self._begun.set()
        if self.status is not None or not data:
            self._ended.set()

    def wait(self, timeout: float) -> None:
        """Wait until the command or the guest has ended, but for the command at most `timeout` seconds."""
        if not self._begun.wait(_BOOT_WITHIN):
            raise GuestError(f"the guest did not boot in {_BOOT_WITHIN:g} s")
        self.timed_out = not self._ended.wait(timeout)


class _Stream:
    """One way out of the guest: QEMU writes into a pipe, a thread hands on what comes, until QEMU has ended."""

    def __init__(self, sink: Callable[[bytes], object]) -> None:
        self._sink = sink
        self._reader, self.writer = os.pipe()
        self._thread = threading.Thread(target=self._copy)
        self._open = [self._reader, self.writer]

    @property
    def end(self) -> str:
        """The chardev option: a descriptor out of a set (qemu(1), -add-fd), which without `append` QEMU truncates."""
        return f"file,path=/dev/fdset/{self.writer},append=on"

    @property
    def options(self) -> list[str]:
        return ["-add-fd", f"fd={self.writer},set={self.writer}"]

    def begin(self) -> None:
        """Call when QEMU has its copy of the writing end: ours would keep the pipe open for ever."""
        self._close(self.writer)
        self._thread.start()

    def finish(self) -> None:
        """Call when QEMU has ended."""
        self._thread.join()

    def close(self) -> None:
        for descriptor in tuple(self._open):
            self._close(descriptor)

    def _copy(self) -> None:
        while chunk := os.read(self._reader, _CHUNK):
            self._sink(chunk)
        self._sink(b"")

    def _close(self, descriptor: int) -> None:
        self._open.remove(descriptor)
        os.close(descriptor)


def _execute(command: Sequence[str], streams: Sequence[_Stream], wait: Callable[[], None]) -> None:
    """Run QEMU while `wait` waits; all that the guest wrote before is handed on."""
    # A guest must not outlive the one who waits for it, also when that one is killed.
    tied = ["setpriv", "--pdeathsig", "KILL", "--", *command]
    writers = [stream.writer for stream in streams]
    with subprocess.Popen(tied, stdin=subprocess.DEVNULL, stdout=sys.stderr, pass_fds=writers) as qemu:
        for stream in streams:
            stream.begin()
        try:
            wait()
        finally:
            # A guest's write returns when QEMU has the data, so none is lost, and no file of it needs an orderly end.
            qemu.kill()
            for stream in streams:
                stream.finish()


def _hardware(job: Job, directory: Path, streams: Sequence[_Stream]) -> Hardware:
    cached = kernel()
    return Hardware(
        image=cached.image,
        initramfs=initramfs(cached),
        memory=job.memory,
        serial=directory / "serial.log",
        settings={
            "mode": "run",
            "name": "guest",
            "release": cached.release,
            "modules": str(cached.modules.resolve()),
            "command": str((directory / "command").resolve()),
        },
        ports=[stream.end for stream in streams],
        devices=[*files_of_this_machine(), *(option for stream in streams for option in stream.options)],
    )


def _script(job: Job) -> str:
    # /tmp is the guest's own, so a directory of this machine's in it does not exist there.
    kept = {key: value for key, value in job.environment.items() if key != "TMPDIR"}
    pairs = [f"{key}={value}" for key, value in {**kept, IN_GUEST: "1"}.items()]
    return f"cd {shlex.quote(str(job.cwd))} || exit 126\nexec {shlex.join(['env', '-i', *pairs, *job.argv])}\n"


def _writer(stream: IO[bytes]) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        stream.write(data)
        stream.flush()

    return write


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m cni_underlay.lab.guest", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fetch", help="fetch and unpack the kernel, which `run` and the lab otherwise do at first use")
    running = commands.add_parser("run", help="run a command in a guest")
    running.add_argument(
        "--timeout", type=float, default=_TIMEOUT, help="seconds for the command (default: %(default)g)"
    )
    running.add_argument("--memory", type=int, default=_MEMORY_MIB, help="MiB (default: %(default)d)")
    running.add_argument("argv", nargs="+", metavar="CMD", help="the command, after --")
    options = parser.parse_args(arguments)
    try:
        if options.command == "fetch":
            print(kernel().directory)
            return 0
        job = Job(
            argv=options.argv,
            environment=dict(os.environ),
            cwd=Path.cwd(),
            memory=options.memory,
            timeout=options.timeout,
        )
        return run(job, sys.stdout.buffer, sys.stderr.buffer)
    except LabError as error:
        print(f"guest: {error}", file=sys.stderr)
        return 125


if __name__ == "__main__":
    sys.exit(main())
