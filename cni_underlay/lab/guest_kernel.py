"""Debian's kernel, fetched as a package and unpacked into a cache: nothing is installed into the system.

The generic image, not the cloud one: only it has 9p, through which `guest run` sees this machine's files. The kernel
is kept as plain vmlinux, because under TCG the unpacking of vmlinuz alone takes 2.7 s of a 4.5 s boot; QEMU starts a
vmlinux by its PVH note (CONFIG_PVH=y in Debian's).
"""

import fcntl
import lzma
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cni_underlay.lab.errors import GuestError

_PACKAGE = "linux-image-amd64"
# A package file of one's own, for machines that reach no mirror.
_FILE_VARIABLE = "UNDERLAY_LAB_KERNEL_DEB"
_FETCH_WITHIN = 600.0
# 200 of the package's 400 MiB, for hardware that no virtual machine has.
_USELESS = (
    "sound",
    "drivers/gpu",
    "drivers/media",
    "drivers/infiniband",
    "drivers/staging",
    "drivers/iio",
    "drivers/hwmon",
)
_USELESS_NET = ("wireless", "ethernet", "usb", "can", "fddi", "hamradio", "wwan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """An unpacked kernel: `image` is the vmlinux, `modules` its directory below lib/modules, with modules.dep."""

    release: str
    image: Path
    modules: Path

    @property
    def directory(self) -> Path:
        """What the cache keeps of this kernel; initramfs images stand beside it."""
        return self.image.parent


def cache() -> Path:
    """$XDG_CACHE_HOME/cni-underlay, shared by all checkouts of one user."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "cni-underlay")


def kernel() -> Kernel:
    """The kernel in the cache, fetched on first use (71 MB). Raises `GuestError` where that is impossible."""
    directory = cache() / "kernels"
    if found := _newest(directory):
        return found
    directory.mkdir(parents=True, exist_ok=True)
    with _alone(directory):
        return _newest(directory) or _fetch(directory)


def _newest(directory: Path) -> Kernel | None:
    # A directory gets its name when it is complete.
    complete = sorted(directory.glob("linux-image-*/vmlinux"), key=lambda image: image.stat().st_mtime)
    if not complete:
        return None
    image = complete[-1]
    release = image.parent.name.removeprefix("linux-image-")
    return Kernel(release=release, image=image, modules=image.parent / "lib/modules" / release)


def _fetch(directory: Path) -> Kernel:
    with tempfile.TemporaryDirectory(dir=directory, prefix=".fetch-") as temporary:
        package = _package_file(Path(temporary))
        tree = Path(temporary, "tree")
        _run(["dpkg-deb", "-x", str(package), str(tree)])
        vmlinuz = next(tree.glob("boot/vmlinuz-*"), None)
        if vmlinuz is None:
            raise GuestError(f"{package} holds no boot/vmlinuz-*: is it a linux-image package?")
        release = vmlinuz.name.removeprefix("vmlinuz-")
        _keep(tree, release, vmlinux(vmlinuz.read_bytes()))
        (tree / "complete").rename(directory / f"linux-image-{release}")
    found = _newest(directory)
    if found is None:
        raise GuestError(f"{directory}: the kernel vanished")
    return found


def _keep(tree: Path, release: str, image: bytes) -> None:
    """Arrange in `tree`/complete what the cache keeps: vmlinux, and the modules with their index."""
    kept = tree / "complete"
    modules = kept / "lib/modules" / release
    modules.parent.mkdir(parents=True)
    (tree / "lib/modules" / release).rename(modules)
    for useless in (*_USELESS, *(f"drivers/net/{name}" for name in _USELESS_NET)):
        shutil.rmtree(modules / "kernel" / useless, ignore_errors=True)
    # busybox's index is text, which its own modprobe reads in the guest; kmod's would not be there without kmod.
    _run(["busybox", "depmod", "-b", str(kept), release])
    (kept / "vmlinux").write_bytes(image)


def vmlinux(vmlinuz: bytes) -> bytes:
    """The ELF image inside a bzImage (Documentation/x86/boot.rst: setup_sects, payload_offset, payload_length)."""
    setup_sectors = vmlinuz[0x1F1]
    offset, length = struct.unpack_from("<II", vmlinuz, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = vmlinuz[start : start + length]
    if payload[:6] != b"\xfd7zXZ\0":
        raise GuestError("the kernel is not packed with xz, as Debian 12's are")
    # The last four bytes are the unpacked size, appended by the kernel's build; the decompressor stops before them.
    return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(payload)


def _package_file(directory: Path) -> Path:
    given = os.environ.get(_FILE_VARIABLE)
    if given:
        return Path(given)
    try:
        _run(["apt-get", "-q", "download", _versioned_name()], cwd=directory)
    except GuestError as error:
        raise GuestError(
            f"{error}\nThe QEMU guest needs the package that Debian's {_PACKAGE} stands for: run `apt-get update`, "
            f"or name a package file in ${_FILE_VARIABLE}"
        ) from error
    return next(directory.glob("*.deb"))


def _versioned_name() -> str:
    """The package that linux-image-amd64 stands for at the moment."""
    for line in _run(["apt-cache", "depends", _PACKAGE]).splitlines():
        kind, _, name = line.strip().partition(": ")
        if kind == "Depends" and name.startswith("linux-image-"):
            return name
    raise GuestError(f"apt does not say what {_PACKAGE} stands for")


def _run(command: Sequence[str], cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, errors="replace", timeout=_FETCH_WITHIN, check=False
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise GuestError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise GuestError(f"{' '.join(command)}: status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    with (directory / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
