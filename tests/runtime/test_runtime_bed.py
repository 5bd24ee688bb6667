"""The bed itself, with the reference plugins: a runtime in private, and nothing of it afterwards."""

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .bed import containerd
from .bed.containerd import REFERENCE_PLUGINS
from .bed.cri import CriError, Pod
from .bed.images import APP, SERVE

CONFLIST = {
    "cniVersion": "1.0.0",
    "name": "reference",
    "plugins": [{"type": "ptp", "ipam": {"type": "host-local", "subnet": "10.77.0.0/24"}}],
}


@pytest.fixture
def empty_node(installed: None) -> Iterator[Path]:
    """A network namespace with nothing but its loopback."""
    name = f"bed-{secrets.token_hex(4)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield Path("/run/netns") / name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def test_nothing_is_left_of_a_runtime_that_is_killed_with_a_pod_serving(empty_node: Path, tmp_path: Path) -> None:
    plugins = {name: REFERENCE_PLUGINS / name for name in ("ptp", "host-local", "loopback")}
    with containerd.running(tmp_path, empty_node, plugins, {"reference": CONFLIST}, {}) as runtime:
        pod = Pod(name="orphan", uid="1", cgroup_parent=runtime.cgroup)
        sandbox = runtime.cri.run_sandbox(pod)
        container = runtime.cri.start_container(sandbox, pod, APP, SERVE)
        assert runtime.cri.execute(container, "hostname").stdout == "orphan\n"
        status = runtime.cri.sandbox_status(sandbox)
        assert status.ready
        assert status.ips[0].startswith("10.77.0.")
        assert os.path.ismount(status.netns)
        assert containerd.remains(runtime)
    assert containerd.remains(runtime) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "config.toml", "containerd.log", "net.d"]


def test_the_runtime_says_why_it_refuses_a_pod(empty_node: Path, tmp_path: Path) -> None:
    missing = {**CONFLIST, "plugins": [{"type": "missing"}]}
    loopback = {"loopback": REFERENCE_PLUGINS / "loopback"}
    with (
        containerd.running(tmp_path, empty_node, loopback, {"reference": missing}, {}) as runtime,
        pytest.raises(CriError, match='failed to find plugin "missing"'),
    ):
        runtime.cri.run_sandbox(Pod(name="refused", uid="2", cgroup_parent=runtime.cgroup))
