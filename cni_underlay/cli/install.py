"""Putting the plugin on a node, and taking it away: two binaries and a network configuration, each by one rename.

A rename is atomic, and never "text file busy": a runtime that executes the client at this moment goes on with the old
file, the next exec gets the new one. A directory per version with a link switched between them, as agents of many files
need it, would add nothing: the client is one static file, and the two names of it do not depend on each other.

The order carries the rest. A runtime takes up a network as soon as its configuration appears, so the configuration
comes last, when everything that it names is on the disk, and goes first.
"""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import cni_underlay
from cni_underlay import client
from cni_underlay.errors import UnderlayError

BIN_DIR = Path("/opt/cni/bin")
CONF_DIR = Path("/etc/cni/net.d")
BINARIES = ("underlay", "underlay-ipam")
CONFLIST = "10-underlay.conflist"
# What an admin can do, by errno; the rest is told in the C library's words.
_ADVICE = {
    errno.EROFS: "the file system is read-only; choose another directory with --bin-dir or --conf-dir",
    errno.EACCES: "permission denied; this needs root",
    errno.EPERM: "not permitted; this needs root, and the file must not be immutable (lsattr)",
    errno.ENOSPC: "no space is left on the device",
    errno.ENOTDIR: "a part of the path is not a directory",
    errno.EISDIR: "a directory of this name is in the way",
}


class InstallError(UnderlayError):
    """The node refuses, or somebody else's file is in the way; the message says what the admin can do about it."""


class Foreign(StrEnum):
    """What to do with a file under one of our names that is not as we wrote it."""

    REFUSE = "refuse"  # change nothing at all
    KEEP = "keep"  # leave a configuration as the admin wrote it; somebody else's binary is still refused
    REPLACE = "replace"


class Action(StrEnum):
    INSTALLED = "installed"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    KEPT = "kept"
    REMOVED = "removed"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What became of one file; as text, one line for the admin."""

    action: Action
    path: Path
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.action} {self.path}" + (f": {self.reason}" if self.reason else "")


def default_conflist() -> Path:
    """The network configuration that comes with the package: beside it in a wheel, in conf/ in a checkout."""
    package = Path(cni_underlay.__file__).resolve().parent
    places = (package / "conf" / CONFLIST, package.parent / "conf" / CONFLIST)
    for place in places:
        if place.is_file():
            return place
    raise InstallError(f"the package came without {CONFLIST}: reinstall it", str(places[0]))


def install(
    bin_dir: Path = BIN_DIR,
    conf_dir: Path = CONF_DIR,
    *,
    conflist: Path | None = None,
    foreign: Foreign = Foreign.REFUSE,
) -> list[Change]:
    """Put both names of the client and the network configuration in place, in this order; missing directories are made.

    May be repeated at any time, also while pods start: what is as it should be is not written again. `conflist` is a
    configuration of the caller's own instead of the package's default; it goes under the same name. Everything that can
    be refused is refused before the first change. Raises InstallError, and client.ClientMissingError.
    """
    binary = _read(client.path())
    configuration = _read(conflist or default_conflist())
    programs = [bin_dir / name for name in BINARIES]
    network = conf_dir / CONFLIST
    if foreign is not Foreign.REPLACE:
        _refuse_foreign(programs)
    edited = _differs(network, configuration)
    if edited and foreign is Foreign.REFUSE:
        raise InstallError(
            f"{network} differs from what would be installed, and was left alone, as all else: "
            "use --keep to install the binaries only, or --force to replace it"
        )
    changes = [_place(path, binary, 0o755) for path in programs]
    if edited and foreign is Foreign.KEEP:
        return [*changes, Change(action=Action.KEPT, path=network, reason="differs from what would be installed")]
    return [*changes, _place(network, configuration, 0o644)]


def uninstall(
    bin_dir: Path = BIN_DIR,
    conf_dir: Path = CONF_DIR,
    *,
    conflist: Path | None = None,
    foreign: Foreign = Foreign.REFUSE,
) -> list[Change]:
    """Take the network configuration away, then the binaries; directories stay, and so does a binary that is not ours.

    A configuration that differs from `conflist` (the package's default) is the admin's: with REFUSE nothing is removed,
    because a configuration without its binaries stops every pod of the node from starting. Raises InstallError.
    """
    network = conf_dir / CONFLIST
    edited = _differs(network, _read(conflist or default_conflist()))
    if edited and foreign is Foreign.REFUSE:
        raise InstallError(
            f"{network} was changed after it had been installed, and was left alone, as all else: "
            "remove it yourself first, or use --force"
        )
    changes = [
        Change(action=Action.KEPT, path=network, reason="was changed after it had been installed")
        if edited and foreign is Foreign.KEEP
        else _remove(network)
    ]
    for path in (bin_dir / name for name in BINARIES):
        if foreign is not Foreign.REPLACE and _is_there(path) and not _is_ours(path):
            changes.append(Change(action=Action.KEPT, path=path, reason="is not a file of cni-underlay"))
        else:
            changes.append(_remove(path))
    return changes


def _refuse_foreign(programs: list[Path]) -> None:
    for path in programs:
        if _is_there(path) and not _is_ours(path):
            raise InstallError(
                f"{path} is not a file of cni-underlay, and was left alone, as all else: "
                "choose another --bin-dir, or use --force to replace it"
            )


def _is_there(path: Path) -> bool:
    with _clear_errors("look at", path):
        return os.path.lexists(path)


def _is_ours(path: Path) -> bool:
    return path.is_file() and client.MARKER in _read(path)


def _differs(path: Path, content: bytes) -> bool:
    return _is_there(path) and not (path.is_file() and _read(path) == content)


def _read(path: Path) -> bytes:
    with _clear_errors("read", path):
        return path.read_bytes()


def _place(path: Path, content: bytes, mode: int) -> Change:
    """Make `path` a file of this content and mode, durably, unless it is one."""
    with _clear_errors("write", path):
        known = os.path.lexists(path)
        if path.is_file() and path.stat().st_mode & 0o7777 == mode and path.read_bytes() == content:
            return Change(action=Action.UNCHANGED, path=path)
        _make_directory(path.parent)
        # A leading dot and no known ending: runtimes watch conf_dir, and load what ends in .conflist, .conf or .json.
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            os.replace(temporary, path)  # noqa: PTH105  # a name from tempfile
        except BaseException:
            os.unlink(temporary)  # noqa: PTH108
            raise
        _sync(path.parent)
    return Change(action=Action.UPDATED if known else Action.INSTALLED, path=path)


def _remove(path: Path) -> Change:
    with _clear_errors("remove", path):
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return Change(action=Action.ABSENT, path=path)
        _sync(path.parent)
    return Change(action=Action.REMOVED, path=path)


def _make_directory(path: Path) -> None:
    """Make the directory and its parents, 0755 whatever the umask: the runtime may read it as another user."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        _sync(folder.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _clear_errors(verb: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "unknown error")
        advice = _ADVICE.get(error.errno or 0, os.strerror(error.errno or 0).lower())
        raise InstallError(f"cannot {verb} {path}: {advice}", name) from error
