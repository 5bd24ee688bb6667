"""Processes of a lab: started in a namespace, remembered by id and start time, ended by pidfd.

An id alone may belong to somebody else by the time it is used; id and start time together may not (proc(5), `stat`,
field 22), and a pidfd keeps pointing at the process that was checked (pidfd_open(2)).
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cni_underlay.lab import netns
from cni_underlay.lab.errors import LabError

_END_WITHIN = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessId:
    """One process for all times: `started` counts clock ticks since boot."""

    pid: int
    started: int

    @staticmethod
    def of(pid: int) -> "ProcessId | None":
        """The process that has this id at the moment; None where there is none, or a zombie."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The name in parentheses may hold anything, also parentheses and spaces.
        state, *fields = stat[stat.rindex(")") + 2 :].split()
        return None if state in "ZX" else ProcessId(pid=pid, started=int(fields[18]))

    @property
    def alive(self) -> bool:
        return ProcessId.of(self.pid) == self


class Processes:
    """The processes of one lab: pid files in a directory, and those among them that are this process's children."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._children: list[subprocess.Popen[str]] = []

    def start(
        self, name: str, namespace: Path, argv: Sequence[str], *, output: Path, environment: Mapping[str, str]
    ) -> None:
        """Start a process that outlives this one, with standard output and error appended to `output`."""
        with output.open("ab") as log:
            child = self.open(
                namespace,
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        started = ProcessId.of(child.pid)
        if started is None:
            raise LabError(f"{name} ended at once with status {child.wait()}: {tail(output)}")
        self._directory.mkdir(exist_ok=True)
        text = json.dumps({"pid": started.pid, "started": started.started})
        self._file(name).write_text(text, encoding="ascii")

    def open(self, namespace: Path, argv: Sequence[str], **options: Any) -> subprocess.Popen[str]:  # noqa: ANN401  # Popen's own
        """`subprocess.Popen` inside a namespace, as text; what still runs when the lab goes down is killed with it."""
        try:
            child = netns.inside(namespace, lambda: subprocess.Popen(argv, text=True, **options))
        except FileNotFoundError as error:
            raise LabError(f"{namespace.name}: {' '.join(argv)}: {error}") from error
        self._children.append(child)
        return child

    def run(
        self, namespace: Path, argv: Sequence[str], *, stdin: str, timeout: float, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end inside a namespace.

        After `timeout` seconds it is killed, and `subprocess.TimeoutExpired` raised.
        """
        pipe = subprocess.PIPE
        child = self.open(namespace, argv, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)
        try:
            output, errors = child.communicate(stdin, timeout)
        except BaseException:
            child.kill()
            child.communicate()
            raise
        finally:
            self._children.remove(child)
        return subprocess.CompletedProcess(argv, child.returncode, output, errors)

    def find(self, name: str) -> ProcessId | None:
        """The running process of that name, or None."""
        try:
            data = json.loads(self._file(name).read_bytes())
        # An empty file: whoever started it was killed while writing.
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        recorded = ProcessId(pid=data["pid"], started=data["started"])
        return recorded if recorded.alive else None

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal to the process of that name; `LabError` where none runs."""
        with self._handle(name) as handle:
            if handle is None:
                raise LabError(f"{name} does not run")
            signal.pidfd_send_signal(handle, number)

    def end(self, name: str, number: signal.Signals) -> None:
        """Send a signal that ends the process of that name and wait for its end; nothing happens where none runs."""
        with self._handle(name) as handle:
            if handle is not None:
                signal.pidfd_send_signal(handle, number)
                _wait(handle, f"{name} does not end on {number.name}")
        self._file(name).unlink(missing_ok=True)
        for child in tuple(self._children):
            child.poll()

    def collect(self) -> None:
        """Take the exit statuses of all children (they are dead already) and close what is left of their pipes."""
        for child in self._children:
            child.wait(_END_WITHIN)
            for pipe in (child.stdin, child.stdout, child.stderr):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        self._children.clear()

    @contextlib.contextmanager
    def _handle(self, name: str) -> Iterator[int | None]:
        process = self.find(name)
        with contextlib.ExitStack() as stack:
            handle = stack.enter_context(_pidfd(process.pid)) if process else None
            # Checked after opening: from here on the descriptor cannot come to mean another process.
            yield handle if process and process.alive else None

    def _file(self, name: str) -> Path:
        return self._directory / name


def kill_members(namespaces: Iterable[Path]) -> None:
    """Kill every process that lives in one of the namespaces: they are private, so it belongs to their lab.

    This also finds what no pid file knows, because whoever started it was killed before writing one.
    """
    paths = tuple(namespaces)
    wanted = netns.identities(paths)
    deadline = time.monotonic() + _END_WITHIN
    # Again until none is left: a process may have forked meanwhile.
    while pids := netns.members(paths):
        if time.monotonic() > deadline:
            raise LabError(f"processes {sorted(pids)} survive being killed")
        for pid in pids:
            with _pidfd(pid) as handle:
                if handle is not None and netns.lives_in(pid, wanted):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    _wait(handle, f"process {pid} survives being killed")


def tail(log: Path, lines: int = 30) -> str:
    """The last lines of a log; empty where there is none."""
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int | None]:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


def _wait(handle: int, complaint: str) -> None:
    # A pidfd becomes readable when its process has ended, collected by its parent or not.
    readable, _, _ = select.select([handle], [], [], _END_WITHIN)
    if not readable:
        raise LabError(f"{complaint} within {_END_WITHIN:g} s")
