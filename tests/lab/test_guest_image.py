"""The guest's root archive and its kernel, as files."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cni_underlay.lab.errors import GuestError
from cni_underlay.lab.guest_initramfs import Entry, archive, initramfs, load_order, parse_dependencies
from cni_underlay.lab.guest_kernel import Kernel, kernel, vmlinux

DEPENDENCIES = parse_dependencies(
    "net/b.ko: net/a.ko lib/z-1.ko\nlib/z-1.ko:\nnet/a.ko: lib/z-1.ko\nnet/unused.ko: net/b.ko\n"
)


def test_a_module_is_loaded_after_all_that_it_needs() -> None:
    assert load_order(["b"], DEPENDENCIES) == ("lib/z-1.ko", "net/a.ko", "net/b.ko")


def test_dash_and_underscore_name_the_same_module() -> None:
    assert load_order(["z_1"], DEPENDENCIES) == ("lib/z-1.ko",)


def test_an_unknown_module_is_named() -> None:
    with pytest.raises(GuestError, match="no module nosuch"):
        load_order(["nosuch"], DEPENDENCIES)


def test_another_reader_unpacks_what_was_packed(tmp_path: Path) -> None:
    entries = [
        Entry(path="d", mode=0o040755),
        Entry(path="d/file", mode=0o100640, content=b"odd"),
        Entry(path="d/link", mode=0o120777, content=b"file"),
        Entry(path="null", mode=0o020666, device=(1, 3)),
    ]
    subprocess.run(["busybox", "cpio", "-id"], input=archive(entries), cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "d/link").read_bytes() == b"odd"
    assert (tmp_path / "d/file").stat().st_mode == 0o100640
    assert (tmp_path / "null").stat().st_rdev == Path("/dev/null").stat().st_rdev


@pytest.fixture
def copied_kernel(tmp_path: Path) -> Kernel:
    """The cached kernel's files under another directory, so that archives for it are written there."""
    cached = kernel()
    (tmp_path / "vmlinux").symlink_to(cached.image)
    return Kernel(release=cached.release, image=tmp_path / "vmlinux", modules=cached.modules)


def test_the_archive_is_written_once_and_again_when_busybox_changes(
    copied_kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = initramfs(copied_kernel)
    written = first.stat().st_mtime_ns
    assert initramfs(copied_kernel) == first
    assert first.stat().st_mtime_ns == written
    other = tmp_path / "bin" / "busybox"
    other.parent.mkdir()
    other.write_bytes(Path(shutil.which("busybox") or "").read_bytes() + b"updated")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", f"{other.parent}:{os.environ['PATH']}")
    assert initramfs(copied_kernel) != first


def test_a_busybox_that_needs_libraries_is_refused(
    copied_kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "busybox"
    other.symlink_to(shutil.which("true") or "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GuestError, match="install busybox-static"):
        initramfs(copied_kernel)


def test_a_kernel_that_cannot_be_fetched_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    # apt as on a machine that never ran `apt-get update`.
    configuration = tmp_path / "apt.conf"
    configuration.write_text(f'Dir::State "{tmp_path}/state"; Dir::Cache "{tmp_path}/cache";')
    monkeypatch.setenv("APT_CONFIG", str(configuration))
    with pytest.raises(GuestError, match=r"apt-get update.*UNDERLAY_LAB_KERNEL_DEB"):
        kernel()
    assert not list(tmp_path.glob("**/.fetch-*"))


def test_a_package_file_that_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "x.deb"
    package.write_bytes(b"no archive")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("UNDERLAY_LAB_KERNEL_DEB", str(package))
    with pytest.raises(GuestError, match=r"x\.deb"):
        kernel()


def test_a_kernel_packed_otherwise_is_refused() -> None:
    with pytest.raises(GuestError, match="not packed with xz"):
        vmlinux(bytes(4096))
