"""A containerd of our own: private directories, a node's network namespace, own mount and pid namespaces.

The kernel cleans up after it: killing process 1 of the pid namespace ends containerd, shims and containers together,
and with the last process of the mount namespace go its mounts. Only the pods' network namespaces are mounted where the
machine sees them too, as on a real node: the agent and the tests may open them by the path in CNI_NETNS.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .cri import Cri, CriError
from .images import BUSYBOX, PAUSE, write_images
from .waiting import wait_until

REFERENCE_PLUGINS = Path("/usr/lib/cni")
_PACKAGES = {
    Path("/usr/bin/containerd"): "containerd",
    Path("/usr/sbin/runc"): "runc",
    BUSYBOX: "busybox-static",
    REFERENCE_PLUGINS / "loopback": "containernetworking-plugins",
}

_START_SECONDS = 30.0
_CGROUPS = Path("/sys/fs/cgroup")

# Sockets of the shims and runc's state are under /run/containerd whatever `state` says (containerd issue 5096), and
# libcni's cache and host-local's files under /var/lib/cni: each gets a tmpfs that only this mount namespace sees.
_HARD_CODED = (Path("/run/containerd"), Path("/var/lib/cni"))

_CONFIG = """\
version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.internal.v1.restart",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.native", "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = "{directory}/state/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true  # without CAP_SYS_RESOURCE no score can be lowered, and runc would refuse to start
  disable_apparmor = true
  netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{directory}/bin"
  conf_dir = "{directory}/net.d/{default}"

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "{default}"
"""

_HANDLER = """
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}]
  runtime_type = "io.containerd.runc.v2"
  cni_conf_dir = "{directory}/net.d/{name}"
"""

# Process 1 of the pid namespace: a shell that waits, not containerd, because orphaned shims become its children and
# somebody has to reap them. Mounts become slaves one by one: --make-rslave would cut the pods' namespaces off too.
_INIT = """\
while read -r _ _ _ _ target _; do
  [ "$target" = "{netns}" ] || mount --make-slave "$target"
done < /proc/self/mountinfo
for directory in {hidden}; do mount -t tmpfs -o mode=755 tmpfs "$directory" || exit 1; done
while :; do containerd --config {directory}/config.toml; done
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Containerd:
    """A running containerd. `cgroup` is for its pods' `cgroup_parent`, `init` the pid of what starts it again."""

    cri: Cri
    directory: Path
    default: str
    cgroup: str
    init: int

    @property
    def log(self) -> Path:
        """What containerd, its shims and the script around them say."""
        return _log(self.directory)

    def reconfigure(self, conflist: Mapping[str, Any]) -> None:
        """Replace the default handler's network, and wait until containerd has read it."""
        text = _write_conflist(self.directory, self.default, conflist)
        wait_until(lambda: text in self.cri.networks(), "containerd has not read the new network")

    def crash(self) -> None:
        """Kill containerd alone: its pods go on. Return when it has been started again and answers."""
        (containerd,) = (pid for pid in _children(self.init) if _read(Path(f"/proc/{pid}/comm")) == "containerd\n")
        os.kill(containerd, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{containerd}").exists(), "containerd did not die")
        wait_until(lambda: _answers(self.cri), f"containerd does not answer, see {self.log}", _START_SECONDS)


def missing_packages() -> list[str]:
    """The Debian packages that have to be installed before `running` can work."""
    return [package for file, package in _PACKAGES.items() if not file.exists()]


@contextmanager
def running(
    directory: Path,
    netns: Path,
    plugins: Mapping[str, Path],
    networks: Mapping[str, Mapping[str, Any]],
    environment: Mapping[str, str],
) -> Iterator[Containerd]:
    """Run containerd in the network namespace `netns`; afterwards nothing of it, nor of its pods, is left but its log.

    `plugins` are executables by the names they get, `networks` a configuration list for each runtime handler, the
    default one first. `environment` is added to the few variables containerd gets, and the plugins inherit from it.
    """
    netns_mounts = directory / "state/io.containerd.grpc.v1.cri/netns"
    hidden = (directory / "root", *_HARD_CODED)
    default, cgroup = next(iter(networks)), f"cni-underlay-{secrets.token_hex(4)}"
    with ExitStack() as undo:
        for path in (netns_mounts, *hidden):
            _make(path, undo)
        undo.callback(shutil.rmtree, directory / "state")
        _share(netns_mounts, undo)
        undo.callback(_remove_cgroup, cgroup)
        _write_files(directory, plugins, networks)
        script = _INIT.format(directory=directory, netns=netns_mounts, hidden=" ".join(map(str, hidden)))
        init = _launch(script, netns, environment, _log(directory), undo)
        cri = undo.enter_context(Cri(directory / "state/containerd.sock", timeout=60))
        wait_until(lambda: _answers(cri), f"containerd does not answer, see {_log(directory)}", _START_SECONDS)
        _import_images(directory)
        yield Containerd(cri=cri, directory=directory, default=default, cgroup=f"/{cgroup}", init=init)


def remains(container: Containerd) -> list[str]:
    """What is left of a containerd that was stopped: processes, mounts, cgroups."""
    directory, cgroup = str(container.directory), container.cgroup.lstrip("/")
    processes = [path for path in Path("/proc").glob("[0-9]*/cmdline") if directory in _read(path)]
    processes += [path for path in Path("/proc").glob("[0-9]*/cgroup") if cgroup in _read(path)]
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if directory in line]
    return [*map(str, processes), *mounts, *map(str, _cgroups(cgroup))]


def _log(directory: Path) -> Path:
    return directory / "containerd.log"


def _write_files(directory: Path, plugins: Mapping[str, Path], networks: Mapping[str, Mapping[str, Any]]) -> None:
    (directory / "bin").mkdir()
    for name, plugin in plugins.items():
        (directory / "bin" / name).symlink_to(plugin)
    for handler, conflist in networks.items():
        (directory / "net.d" / handler).mkdir(parents=True)
        _write_conflist(directory, handler, conflist)
    config = _CONFIG.format(directory=directory, pause=PAUSE, default=next(iter(networks)))
    handlers = (_HANDLER.format(name=name, directory=directory) for name in networks)
    (directory / "config.toml").write_text(config + "".join(handlers))


def _write_conflist(directory: Path, handler: str, conflist: Mapping[str, Any]) -> str:
    """Put the file in place whole, and return its text.

    containerd reads the directory again at every write, half a file too, and at a rename, but not when a file appears:
    a file moved in from another directory it would never notice (1.6, pkg/cri/server/cni_conf_syncer.go).
    """
    text = json.dumps(conflist)
    target = directory / "net.d" / handler / "10-underlay.conflist"
    draft = target.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(target)
    return text


def _make(path: Path, undo: ExitStack) -> None:
    """Make a directory with its parents, and note that it goes again when nobody put anything into it."""
    for parent in (*reversed(path.parents), path):
        if not parent.exists():
            parent.mkdir()
            undo.callback(_remove_empty, parent)


def _remove_empty(path: Path) -> None:
    with suppress(OSError):
        path.rmdir()


def _share(path: Path, undo: ExitStack) -> None:
    """Make a mount of a directory, one whose mounts propagate between mount namespaces."""
    subprocess.run(["mount", "--bind", path, path], check=True)
    undo.callback(subprocess.run, ["umount", "--recursive", "--lazy", path], check=True)
    subprocess.run(["mount", "--make-shared", path], check=True)


def _launch(script: str, netns: Path, environment: Mapping[str, str], log: Path, undo: ExitStack) -> int:
    """Run `script` as process 1 of new mount and pid namespaces, and return its pid as seen from here."""
    with log.open("ab") as output:
        unshare = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "SIGKILL"),  # when the tests themselves are killed, nothing goes on
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
    undo.callback(_end, unshare)
    wait_until(lambda: bool(_children(unshare.pid)), f"containerd's namespaces were not made, see {log}")
    return _children(unshare.pid)[0]


def _end(unshare: "subprocess.Popen[bytes]") -> None:
    """Kill process 1 of the namespace, or `unshare` where it has not forked; it is reaped only after all the others."""
    for pid in _children(unshare.pid) or [unshare.pid]:
        os.kill(pid, signal.SIGKILL)
    unshare.wait()


def _children(pid: int) -> list[int]:
    return [int(child) for child in _read(Path(f"/proc/{pid}/task/{pid}/children")).split()]


def _read(path: Path) -> str:
    """A file of /proc as text; empty when its process has just ended."""
    with suppress(OSError):
        return path.read_bytes().decode("utf-8", "replace")
    return ""


def _answers(cri: Cri) -> bool:
    with suppress(CriError):
        return bool(cri.version())
    return False


def _import_images(directory: Path) -> None:
    archive = directory / "images.tar"
    write_images(archive)
    address = str(directory / "state/containerd.sock")
    command = ["ctr", "--address", address, "--namespace", "k8s.io", "images", "import", archive]
    subprocess.run(command, check=True, capture_output=True)
    archive.unlink()


def _cgroups(name: str) -> list[Path]:
    """The cgroup of this name in the unified hierarchy and in each of version 1, as far as they are there."""
    hierarchies = [_CGROUPS, *_CGROUPS.iterdir()] if _CGROUPS.is_dir() else []
    return [hierarchy / name for hierarchy in hierarchies if (hierarchy / name).is_dir()]


def _remove_cgroup(name: str) -> None:
    for cgroup in _cgroups(name):
        for directory, _, _ in os.walk(
            cgroup, topdown=False
        ):  # only directories can be removed in cgroupfs, and must be
            Path(directory).rmdir()
