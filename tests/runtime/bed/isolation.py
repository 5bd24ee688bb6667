"""Keeps a runtime apart from the machine: own mount and pid namespaces, own cgroup.

The kernel does most of the cleaning up: killing process 1 of the pid namespace ends the runtime, its shims and its
containers together, and with the last process of the mount namespace go its mounts. What is left for us, one mount and
the cgroups, is written down before it is made, so that it is also found when the tests themselves were killed.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from cni_underlay.lab.process import ProcessId

from .waiting import wait_until

_REGISTRY = Path("/run/cni-underlay-runtime")
_CGROUPS = Path("/sys/fs/cgroup")

# Mounts become slaves one by one: --make-rslave would cut off the shared one too.
_INIT = """\
while read -r _ _ _ _ target _; do
  [ "$target" = "{shared}" ] || mount --make-slave "$target"
done < /proc/self/mountinfo
for directory in {hidden}; do mount -t tmpfs -o mode=755 tmpfs "$directory" || exit 1; done
{command}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What lies outside of the namespaces and has to go; `made`: directories that were not there, outermost first."""

    directory: str
    shared: str
    cgroup: str
    made: Sequence[str]


@contextmanager
def isolated(
    directory: Path,
    netns: Path,
    *,
    shared: Path,
    hidden: Sequence[Path],
    command: str,
    environment: Mapping[str, str],
    log: Path,
) -> Iterator[tuple[Cell, int]]:
    """Run the shell script `command` as process 1 of a pid namespace; yields its pid out here, too.

    It runs in the network namespace `netns`, sees empty directories in the place of `hidden`, and what it mounts below
    `shared` is mounted for the machine as well. `directory` must be nobody else's.
    """
    with ExitStack() as undo:
        cell = _registered(directory, shared, (directory, shared, *hidden))
        undo.callback(_remove, cell)
        for made in cell.made:
            Path(made).mkdir(exist_ok=True)
        subprocess.run(["mount", "--bind", shared, shared], check=True)
        subprocess.run(["mount", "--make-shared", shared], check=True)
        script = _INIT.format(shared=shared, hidden=" ".join(map(str, hidden)), command=command)
        unshare = _launch(script, netns, environment, log)
        undo.callback(_end, unshare)
        wait_until(lambda: bool(children(unshare.pid)), f"namespaces for a runtime were not made, see {log}")
        yield cell, children(unshare.pid)[0]


def remains(cell: Cell) -> list[str]:
    """What is left of a cell: processes, mounts, cgroups."""
    processes = [path for path in Path("/proc").glob("[0-9]*/cmdline") if cell.directory in _read(path)]
    processes += [path for path in Path("/proc").glob("[0-9]*/cgroup") if cell.cgroup in _read(path)]
    return [*map(str, processes), *_mounts(cell), *map(str, _cgroups(cell))]


def sweep() -> None:
    """Remove what is left of cells whose tests were killed; the processes died with them (PR_SET_PDEATHSIG)."""
    for cell, owner in _entries():
        if not owner.alive:
            _remove(cell)


def children(pid: int) -> list[int]:
    """The process's children; none where it is gone."""
    return [int(child) for child in _read(Path(f"/proc/{pid}/task/{pid}/children")).split()]


def named(pid: int) -> str:
    """The process's name (proc(5), `comm`); empty where it is gone."""
    return _read(Path(f"/proc/{pid}/comm")).strip()


def _registered(directory: Path, shared: Path, wanted: Sequence[Path]) -> Cell:
    lineage = (place for path in wanted for place in (*reversed(path.parents), path))
    others = {made for cell, _ in _entries() for made in cell.made}  # the last one out removes what they share
    made = list(dict.fromkeys(str(place) for place in lineage if not place.exists() or str(place) in others))
    cgroup = f"cni-underlay-{secrets.token_hex(4)}"
    cell = Cell(directory=str(directory), shared=str(shared), cgroup=cgroup, made=made)
    owner = ProcessId.of(os.getpid())
    assert owner is not None
    _REGISTRY.mkdir(exist_ok=True)
    _entry(cell).write_text(json.dumps({"owner": asdict(owner), "cell": asdict(cell)}))
    return cell


def _entry(cell: Cell) -> Path:
    return _REGISTRY / f"{cell.cgroup}.json"


def _entries() -> list[tuple[Cell, ProcessId]]:
    """Every cell with the process that made it."""
    documents = [json.loads(path.read_text()) for path in _REGISTRY.glob("*.json")]
    return [(Cell(**document["cell"]), ProcessId(**document["owner"])) for document in documents]


def _launch(script: str, netns: Path, environment: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("ab") as output:
        return subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "SIGKILL"),
                *("nsenter", f"--net={netns}"),
                *("unshare", "--mount", "--propagation", "unchanged", "--pid", "--kill-child", "--mount-proc"),
                *("/bin/sh", "-c", script),
            ],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )


def _end(unshare: "subprocess.Popen[bytes]") -> None:
    """Kill process 1 of the namespace, or `unshare` where it has not forked; it is reaped only after all the others."""
    for pid in children(unshare.pid) or [unshare.pid]:
        os.kill(pid, signal.SIGKILL)
    unshare.wait()


def _remove(cell: Cell) -> None:
    """Remove what is there of a cell whose processes are dead, or just about to be."""
    if any(line.split()[4] == cell.shared for line in _mounts(cell)):  # os.path.ismount does not see bind mounts
        subprocess.run(["umount", "--recursive", "--lazy", cell.shared], check=True)
    wait_until(lambda: _cgroups_removed(cell), f"cgroup {cell.cgroup} is still in use")
    shared = {made for other, _ in _entries() if other != cell for made in other.made}
    for made in reversed([place for place in cell.made if place not in shared]):
        if made.startswith(cell.directory):
            shutil.rmtree(made, ignore_errors=True)
        with suppress(OSError):  # somebody has put something into it
            Path(made).rmdir()
    _entry(cell).unlink()
    with suppress(OSError):
        _REGISTRY.rmdir()


def _mounts(cell: Cell) -> list[str]:
    return [line for line in _read(Path("/proc/self/mountinfo")).splitlines() if cell.directory in line]


def _cgroups(cell: Cell) -> list[Path]:
    """The cgroup in the unified hierarchy and in each of version 1, as far as they are there."""
    hierarchies = [_CGROUPS, *_CGROUPS.iterdir()] if _CGROUPS.is_dir() else []
    return [hierarchy / cell.cgroup for hierarchy in hierarchies if (hierarchy / cell.cgroup).is_dir()]


def _cgroups_removed(cell: Cell) -> bool:
    try:
        for cgroup in _cgroups(cell):
            for directory, _, _ in os.walk(cgroup, topdown=False):  # in cgroupfs only directories can, and must, go
                Path(directory).rmdir()
    except OSError:  # EBUSY: a process is still dying
        return False
    return True


def _read(path: Path) -> str:
    """A file of /proc as text; empty where its process has just ended."""
    with suppress(OSError):
        return path.read_bytes().decode("utf-8", "replace")
    return ""
