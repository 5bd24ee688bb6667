"""Commands on the kernel of Debian: `python -m cni_underlay.lab.guest run -- CMD...`.

The guest sees the files of this machine, read-only under a layer of memory; /run, /tmp, /proc, /sys and /dev are its
own. So the same virtual environment works at the same path, on a kernel that has ipvlan, 8021q, bonding and the rest.
"""

import argparse
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
from cni_underlay.lab.guest_kernel import kernel
from cni_underlay.lab.guest_machine import Machine, command_line, files_of_this_machine
from cni_underlay.lab.process import tail

# A command can tell by it that it runs in a guest.
IN_GUEST = "UNDERLAY_GUEST"
TIMED_OUT = 124  # as timeout(1)
_MEMORY_MIB = 768
_TIMEOUT = 600.0
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
    with tempfile.TemporaryDirectory(prefix="underlay-guest-") as temporary:
        directory = Path(temporary)
        (directory / "command").write_text(_script(job), encoding="utf-8")
        streams = (_Stream(_writer(stdout)), _Stream(_writer(stderr)), _Stream(progress.take))
        _execute(command_line(_machine(job, directory, streams)), streams, progress, job.timeout)
        if progress.status is not None:
            return progress.status
        if progress.begun.is_set() and progress.timed_out:
            return TIMED_OUT
        console = tail(directory / "serial.log")
        raise GuestError(f"the guest ended without the command's status:\n{console}")


class _Stream:
    """One way out of the guest: QEMU writes into a pipe, a thread hands on what comes, until QEMU has ended."""

    def __init__(self, sink: Callable[[bytes], object]) -> None:
        self._sink = sink
        self._reader, self.writer = os.pipe()
        self._thread = threading.Thread(target=self._copy)

    @property
    def end(self) -> str:
        """The chardev option: a descriptor out of a set (qemu(1), -add-fd), which without `append` QEMU truncates."""
        return f"file,path=/dev/fdset/{self.writer},append=on"

    @property
    def options(self) -> list[str]:
        return ["-add-fd", f"fd={self.writer},set={self.writer}"]

    def begin(self) -> None:
        """Call when QEMU has its copy of the descriptor: ours would keep the pipe open for ever."""
        os.close(self.writer)
        self._thread.start()

    def finish(self) -> None:
        self._thread.join()

    def _copy(self) -> None:
        with open(self._reader, "rb", buffering=0) as reader:  # noqa: PTH123  # a descriptor
            while chunk := reader.read(_CHUNK):
                self._sink(chunk)


def _execute(command: Sequence[str], streams: Sequence[_Stream], timeout: float) -> int | None:
    """QEMU's exit status; None where it had to be killed."""
    # A guest must not outlive the one who waits for it, also when that one is killed.
    tied = ["setpriv", "--pdeathsig", "KILL", "--", *command]
    writers = [stream.writer for stream in streams]
    with subprocess.Popen(tied, stdin=subprocess.DEVNULL, stdout=sys.stderr, pass_fds=writers) as qemu:
        for stream in streams:
            stream.begin()
        try:
            return qemu.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        finally:
            qemu.kill()
            for stream in streams:
                stream.finish()


def _machine(job: Job, directory: Path, streams: Sequence[_Stream]) -> Machine:
    cached = kernel()
    return Machine(
        kernel=cached,
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
        "--timeout", type=float, default=_TIMEOUT, help="seconds, boot included (default: %(default)g)"
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
