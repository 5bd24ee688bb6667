"""The bed itself, with the reference plugins: a runtime in private, and nothing of it afterwards."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .bed import containerd
from .bed.containerd import REFERENCE_PLUGINS
from .bed.cri import CriError, Pod
from .bed.images import APP, PAUSE, SERVE
from .bed.isolation import remains, sweep
from .bed.waiting import wait_until

PLUGINS = {name: REFERENCE_PLUGINS / name for name in ("ptp", "host-local", "loopback")}
CONFLIST = {
    "cniVersion": "1.0.0",
    "name": "reference",
    "plugins": [{"type": "ptp", "ipam": {"type": "host-local", "subnet": "10.77.0.0/24"}}],
}
# A test run that dies in the middle: it tells its cgroup when its pod runs, and waits to be killed.
DOOMED = """
import sys
from pathlib import Path
from tests.runtime.bed import containerd
from tests.runtime.bed.cri import Pod
from tests.runtime.test_runtime_bed import CONFLIST, PLUGINS
with containerd.running(Path(sys.argv[1]), Path(sys.argv[2]), PLUGINS, {"reference": CONFLIST}, {}) as runtime:
    runtime.cri.run_sandbox(Pod(name="doomed", uid="3", cgroup_parent=runtime.cgroup))
    print(runtime.cgroup, flush=True)
    sys.stdin.read()
"""


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


def test_nothing_is_left_of_a_runtime_that_ends_with_a_pod_serving(empty_node: Path, tmp_path: Path) -> None:
    with containerd.running(tmp_path, empty_node, PLUGINS, {"reference": CONFLIST}, {}) as runtime:
        assert set(runtime.cri.images()) == {APP, PAUSE}
        assert all(ready for ready, _ in runtime.cri.conditions().values())
        pod = Pod(name="orphan", uid="1", cgroup_parent=runtime.cgroup)
        sandbox = runtime.cri.run_sandbox(pod)
        container = runtime.cri.start_container(sandbox, pod, APP, SERVE)
        assert runtime.cri.execute(container, "hostname").stdout == "orphan\n"
        status = runtime.cri.sandbox_status(sandbox)
        assert status.ready
        assert status.ips[0].startswith("10.77.0.")
        assert os.path.ismount(status.netns)
        assert remains(runtime.cell)
    assert remains(runtime.cell) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "config.toml", "containerd.log", "net.d"]


def test_a_runtime_dies_with_its_tests_and_the_next_ones_clear_its_remains(empty_node: Path, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", DOOMED, str(tmp_path), str(empty_node)]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as doomed:
        assert doomed.stdout is not None
        cgroup = doomed.stdout.readline().strip()
        doomed.kill()
    sweep()
    wait_until(lambda: str(tmp_path) not in subprocess.check_output(["ps", "-eo", "args"], text=True), "it lives")
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert cgroup
    assert not list(Path("/sys/fs/cgroup").glob(f"*{cgroup}"))


def test_the_runtime_says_why_it_refuses_a_pod(empty_node: Path, tmp_path: Path) -> None:
    missing = {**CONFLIST, "plugins": [{"type": "missing"}]}
    with (
        containerd.running(tmp_path, empty_node, PLUGINS, {"reference": missing}, {}) as runtime,
        pytest.raises(CriError, match='failed to find plugin "missing"'),
    ):
        runtime.cri.run_sandbox(Pod(name="refused", uid="2", cgroup_parent=runtime.cgroup))
