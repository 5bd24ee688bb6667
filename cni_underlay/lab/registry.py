"""Which labs exist: one directory each below /run/cni-underlay-lab, complete from its first moment.

A lab's directory appears by rename with everything in it that `down` needs; all that the lab makes afterwards is found
through that directory, so a kill at any point leaves a lab that can still be taken down.
"""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cni_underlay.lab.errors import LabError
from cni_underlay.lab.process import ProcessId
from cni_underlay.lab.topology import Topology
from cni_underlay.lab.topology_file import parse

BASE = Path("/run/cni-underlay-lab")
_ABOUT = "lab.json"
_TOPOLOGY = "topology.yaml"
_LOCK = "lock"
_UNBORN = ".new-"
_BUILT_WITHIN = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LabDirectory:
    """Where a lab keeps its state: `source` is the file it was made from, `owner` whom it must not outlive."""

    path: Path
    source: str
    owner: ProcessId | None

    @property
    def id(self) -> str:
        """The topology's name and a suffix that no other lab has."""
        return self.path.name

    def topology(self) -> Topology:
        """The topology as it was when the lab was made."""
        return parse((self.path / _TOPOLOGY).read_text(encoding="utf-8"), str(self.path / _TOPOLOGY))

    @property
    def orphaned(self) -> bool:
        return self.owner is not None and not self.owner.alive

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """Keep `down` of another process waiting; a lock of a process that is killed goes with it."""
        with (self.path / _LOCK).open("ab") as lock:
            _lock(lock.fileno(), self.id)
            yield

    def remove(self) -> None:
        """Delete the directory, what identifies the lab last; nothing may be mounted in it any more."""
        for entry in self.path.iterdir():
            if entry.name != _ABOUT:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        shutil.rmtree(self.path)
        tidy()


def create(topology: Topology, source: str, owner: ProcessId | None) -> LabDirectory:
    """Register a new lab under a name of its own."""
    identity = f"{topology.name}-{secrets.token_hex(3)}"
    creator = ProcessId.of(os.getpid())
    if creator is None:
        raise LabError("/proc does not show this process: is it mounted?")
    unborn = BASE / f"{_UNBORN}{identity}-{creator.pid}-{creator.started}"
    _make_directory(unborn)
    about = {"source": source, "owner": asdict(owner) if owner else None}
    (unborn / _TOPOLOGY).write_text(topology.text, encoding="utf-8")
    (unborn / _ABOUT).write_text(json.dumps(about), encoding="utf-8")
    return LabDirectory(path=unborn.rename(BASE / identity), source=source, owner=owner)


def labs() -> tuple[LabDirectory, ...]:
    """Every lab on this machine, by id."""
    paths = sorted(path for path in BASE.glob("*") if not path.name.startswith(_UNBORN))
    return tuple(lab for path in paths if (lab := _read(path)) is not None)


def find(reference: str) -> tuple[LabDirectory, ...]:
    """The labs with that id, or made from that topology file."""
    source = os.path.realpath(reference)
    return tuple(lab for lab in labs() if reference == lab.id or source == lab.source)


def tidy() -> None:
    """Remove what a killed `create` or `remove` left, and the base directory with the last lab."""
    for path in BASE.glob(f"{_UNBORN}*"):
        pid, started = path.name.rsplit("-", 2)[1:]
        if not ProcessId(pid=int(pid), started=int(started)).alive:
            shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        for path in BASE.iterdir():
            if not path.name.startswith(_UNBORN):
                with contextlib.suppress(OSError):  # ENOTEMPTY: a lab
                    path.rmdir()
    with contextlib.suppress(OSError):
        BASE.rmdir()


def _read(path: Path) -> LabDirectory | None:
    """None where another process has taken the lab down meanwhile."""
    try:
        about = json.loads((path / _ABOUT).read_bytes())
    except FileNotFoundError:
        return None
    owner = ProcessId(**about["owner"]) if about["owner"] else None
    return LabDirectory(path=path, source=about["source"], owner=owner)


def _make_directory(path: Path) -> None:
    # Another lab's `down` may remove the empty base directory in between.
    for _ in range(10):
        BASE.mkdir(mode=0o755, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            path.mkdir(mode=0o755)
            return
    raise LabError(f"{path} cannot be made")


def _lock(descriptor: int, who: str) -> None:
    deadline = time.monotonic() + _BUILT_WITHIN
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise LabError(f"lab {who} is still being built by another process after {_BUILT_WITHIN:g} s") from None
            time.sleep(0.05)
        else:
            return
