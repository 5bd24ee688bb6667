"""A containerd of our own on a node: its configuration, its images, its life.

Only the pods' network namespaces are mounted where the machine sees them too, as on a real node: the agent and the
tests may open them by the path in CNI_NETNS.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .cri import Cri, CriError
from .images import BUSYBOX, PAUSE, write_images
from .isolation import Cell, children, isolated, named
from .waiting import wait_until

REFERENCE_PLUGINS = Path("/usr/lib/cni")
_PACKAGES = {
    Path("/usr/bin/containerd"): "containerd",
    Path("/usr/sbin/runc"): "runc",
    BUSYBOX: "busybox-static",
    REFERENCE_PLUGINS / "loopback": "containernetworking-plugins",
}

_START_SECONDS = 30.0

# Sockets of the shims and runc's state are under /run/containerd whatever `state` says (containerd issue 5096), and
# libcni's cache and host-local's files under /var/lib/cni.
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

# A shell stays process 1, because orphaned shims become its children and somebody has to reap them.
_FOR_EVER = "while :; do containerd --config {directory}/config.toml; done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Containerd:
    """A running containerd; `init` is the pid of the shell that starts it again."""

    cri: Cri
    directory: Path
    default: str
    cell: Cell
    init: int

    @property
    def cgroup(self) -> str:
        """For its pods' `cgroup_parent`."""
        return f"/{self.cell.cgroup}"

    @property
    def log(self) -> Path:
        """What containerd, its shims and the shell around them say."""
        return _log(self.directory)

    def reconfigure(self, conflist: Mapping[str, Any]) -> None:
        """Replace the default handler's network, and wait until containerd has read it."""
        text = _write_conflist(self.directory, self.default, conflist)
        wait_until(lambda: text in self.cri.networks(), "containerd has not read the new network")

    def crash(self) -> None:
        """Kill containerd alone: its pods go on. Return when it has been started again and answers."""
        (containerd,) = (pid for pid in children(self.init) if named(pid) == "containerd")
        os.kill(containerd, signal.SIGKILL)
        wait_until(lambda: not named(containerd), "containerd did not die")
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
    """Run containerd in the network namespace `netns`; afterwards nothing of it is left but its log and configuration.

    `plugins` are executables by the names they get, `networks` a configuration list for each runtime handler, the
    default one first. `environment` is added to the few variables containerd gets, and the plugins inherit from it.
    """
    _write_files(directory, plugins, networks)
    with ExitStack() as undo:
        cell, init = undo.enter_context(
            isolated(
                directory,
                netns,
                shared=directory / "state/io.containerd.grpc.v1.cri/netns",
                hidden=(directory / "root", *_HARD_CODED),
                command=_FOR_EVER.format(directory=directory),
                environment=environment,
                log=_log(directory),
            )
        )
        cri = undo.enter_context(Cri(directory / "state/containerd.sock", timeout=60))
        wait_until(lambda: _answers(cri), f"containerd does not answer, see {_log(directory)}", _START_SECONDS)
        _import_images(directory)
        yield Containerd(cri=cri, directory=directory, default=next(iter(networks)), cell=cell, init=init)


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


def _answers(cri: Cri) -> bool:
    with suppress(CriError):
        return bool(cri.version())
    return False


def _import_images(directory: Path) -> None:
    archive = directory / "images.tar"
    write_images(archive)
    address = str(directory / "state/containerd.sock")
    command = ["ctr", "--address", address, "--namespace", "k8s.io", "images", "import", str(archive)]
    subprocess.run(command, check=True, capture_output=True)
    archive.unlink()
