"""The guest's root: an archive of busybox, some modules and one script, written here without any privilege.

The kernel reads it as "newc" cpio (Documentation/driver-api/early-userspace/buffer-format.rst). It is not compressed:
QEMU hands it over in one copy, and unpacking would run under TCG.
"""

import hashlib
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from cni_underlay.lab.errors import GuestError
from cni_underlay.lab.guest_kernel import Kernel

# What the guest's script loads, then what tests may ask modprobe for.
_MODULES = (
    *("virtio_pci", "virtio_console", "virtio_net", "9pnet_virtio", "9p", "overlay"),
    *("ipvlan", "macvlan", "veth", "bridge", "8021q", "bonding", "dummy", "vxlan", "sch_tbf", "sch_netem"),
)
_DIRECTORIES = ("bin", "dev", "lib", "lib/modules", "proc", "sys", "tmp", "www", "lower", "upper", "root")
_CONSOLE = (5, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One member of an archive. `device` is (major, minor) of a character device."""

    path: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def initramfs(kernel: Kernel) -> Path:
    """The archive for a kernel; the one in the cache where nothing that goes into it has changed."""
    busybox = _busybox()
    script = resources.files(__package__).joinpath("guest_init.sh").read_bytes()
    identity = hashlib.sha256(b"\0".join((busybox, script, repr((_MODULES, _DIRECTORIES)).encode()))).hexdigest()
    path = kernel.directory / f"initramfs-{identity[:16]}.cpio"
    if not path.exists():
        # Two that write at once write the same; each renames its own.
        written = path.with_name(f"{path.name}.{id(busybox)}")
        written.write_bytes(archive(_entries(kernel, busybox, script)))
        written.replace(path)
    return path


def archive(entries: Iterable[Entry]) -> bytes:
    """Entries as a newc archive, with its trailer."""
    members = [_member(entry, number) for number, entry in enumerate(entries, 1)]
    return b"".join((*members, _member(Entry(path="TRAILER!!!", mode=0), 0)))


def load_order(wanted: Sequence[str], dependencies: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Paths of the modules wanted and of all they need, each after what it needs.

    `dependencies` is modules.dep by path. In names `-` and `_` are the same (modprobe(8)).
    """
    by_name = {Path(path).stem.replace("-", "_"): path for path in dependencies}
    order: dict[str, None] = {}

    def visit(path: str) -> None:
        if path not in order:
            for needed in dependencies[path]:
                visit(needed)
            order[path] = None

    for name in wanted:
        if name not in by_name:
            raise GuestError(f"the guest's kernel has no module {name}")
        visit(by_name[name])
    return tuple(order)


def parse_dependencies(text: str) -> dict[str, list[str]]:
    """modules.dep: one line `path: path path ...` for each module."""
    return {path: rest.split() for path, _, rest in (line.partition(":") for line in text.splitlines())}


def _entries(kernel: Kernel, busybox: bytes, script: bytes) -> Iterator[Entry]:
    for directory in _DIRECTORIES:
        yield _directory(directory)
    yield Entry(path="init", mode=stat.S_IFREG | 0o755, content=script)
    yield Entry(path="bin/busybox", mode=stat.S_IFREG | 0o755, content=busybox)
    yield Entry(path="bin/sh", mode=stat.S_IFLNK | 0o777, content=b"busybox")
    # The kernel opens it for init's standard streams before devtmpfs is mounted.
    yield Entry(path="dev/console", mode=stat.S_IFCHR | 0o600, device=_CONSOLE)
    yield from _module_entries(kernel)


def _module_entries(kernel: Kernel) -> Iterator[Entry]:
    dependencies = parse_dependencies((kernel.modules / "modules.dep").read_text(encoding="ascii"))
    order = load_order(_MODULES, dependencies)
    root = f"lib/modules/{kernel.release}"
    index = "".join(f"{path}: {' '.join(dependencies[path])}\n" for path in order)
    names = {Path(path).stem.replace("-", "_") for path in order}
    aliases = (kernel.modules / "modules.alias").read_text(encoding="ascii").splitlines(keepends=True)
    kept = "".join(line for line in aliases if line.split()[-1].replace("-", "_") in names)
    directories = {str(parent) for path in order for parent in Path(root, path).parents}
    for directory in sorted(directories - set(_DIRECTORIES) - {"."}):
        yield _directory(directory)
    yield Entry(path=f"{root}/modules.dep", mode=stat.S_IFREG | 0o644, content=index.encode())
    yield Entry(path=f"{root}/modules.alias", mode=stat.S_IFREG | 0o644, content=kept.encode())
    for path in order:
        yield Entry(path=f"{root}/{path}", mode=stat.S_IFREG | 0o644, content=(kernel.modules / path).read_bytes())


def _directory(path: str) -> Entry:
    return Entry(path=path, mode=stat.S_IFDIR | 0o755)


def _member(entry: Entry, inode: int) -> bytes:
    name = entry.path.encode() + b"\0"
    major, minor = entry.device
    # magic, ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
    fields = (inode, entry.mode, 0, 0, 1, 0, len(entry.content), 0, 0, major, minor, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(entry.content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def _busybox() -> bytes:
    path = shutil.which("busybox")
    if path is None:
        raise GuestError("busybox is missing: install busybox-static")
    content = Path(path).read_bytes()
    # A dynamic one names its loader in the program headers; the guest has no libraries.
    if b"ld-linux" in content[:4096]:
        raise GuestError(f"{path} is linked dynamically: install busybox-static")
    return content
