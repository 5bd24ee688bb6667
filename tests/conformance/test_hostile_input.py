"""SPEC 1 and 6: what a machine may do to a plugin: limits, masks, closed descriptors, a full or read-only disk."""

import os
import resource
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .bed.netns import Pod
from .bed.network import Network, hosts, inline, network_conf, own_interface, range4
from .bed.node import GATEWAY4, Node

spec = pytest.mark.spec

CONF = network_conf("hostile", datapath="veth", version="1.1.0", ipam=inline())
WORLD_WRITABLE = stat.S_IWOTH


@spec("E-19")
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o777])
def test_the_callers_mask_does_not_matter(network: Callable[..., Network], pod: Pod, mask: int) -> None:
    own = network()
    own.add(pod, umask=mask).succeed()
    own.check(pod, umask=mask).succeed()
    own.delete(pod, umask=mask).succeed()


@spec("E-19")
@pytest.mark.parametrize("mask", [0o000, 0o777])
def test_no_state_is_writable_for_others_whatever_the_agents_mask(idle_node: Node, pod: Pod, mask: int) -> None:
    before = os.umask(mask)
    try:
        idle_node.start_agent()
    finally:
        os.umask(before)
    idle_node.call(pod, "ADD", CONF).succeed()
    made = [idle_node.state_dir, *idle_node.state_dir.rglob("*"), *idle_node.socket.parent.rglob("*")]
    assert len(made) > 2
    assert [path for path in made if path.stat().st_mode & WORLD_WRITABLE] == []
    assert stat.S_IMODE(idle_node.socket.stat().st_mode) == 0o600
    idle_node.call(pod, "DEL", CONF).succeed()


@spec("E-19", "D-3")
@pytest.mark.parametrize("mask", [0o000, 0o777])
def test_a_del_that_is_kept_for_a_stopped_agent_is_nobody_elses_to_write(own_node: Node, pod: Pod, mask: int) -> None:
    own_node.call(pod, "ADD", CONF).succeed()
    own_node.stop_agent()
    own_node.call(pod, "DEL", CONF, umask=mask).succeed()
    (kept,) = own_node.spool.iterdir()
    assert not kept.stat().st_mode & 0o077
    assert not own_node.spool.stat().st_mode & 0o077
    own_node.start_agent()
    assert list(own_node.spool.iterdir()) == []
    assert own_node.changes() == {}
    assert pod.links() == {"lo"}


@spec("E-18", "E-19")
@pytest.mark.parametrize("locale", ["C", "POSIX", "xx_XX.UTF-16", ""])
def test_the_locale_does_not_matter(network: Callable[..., Network], pod: Pod, locale: str) -> None:
    own = network()
    env: dict[str, str | bytes | None] = {"LC_ALL": locale, "LANG": locale}
    result = own.add(pod, ifname="ä", env=env).result
    assert own_interface(result, "ä")
    own.delete(pod, ifname="ä", env=env).succeed()


@spec("E-18")
def test_the_agent_needs_no_variables_either(idle_node: Node, pod: Pod) -> None:
    idle_node.launcher = ("/usr/bin/env", "-i", "LC_ALL=C")
    idle_node.start_agent()
    result = idle_node.cni("ADD", CONF, container=pod.container, netns=pod.path, ifname="ä").result
    assert own_interface(result, "ä")
    idle_node.cni("DEL", CONF, container=pod.container, netns=pod.path, ifname="ä").succeed()


def _few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def _many_open() -> None:
    for _ in range(50):
        os.dup(0)


def _close_all() -> None:
    os.closerange(3, 64)


def _no_core() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    os.nice(19)


@spec("E-19")
@pytest.mark.parametrize("prepare", [_few_descriptors, _many_open, _close_all, _no_core])
def test_the_callers_limits_do_not_matter(
    network: Callable[..., Network], pod: Pod, prepare: Callable[[], None]
) -> None:
    own = network()
    own.add(pod, preexec_fn=prepare, close_fds=False).succeed()
    own.check(pod, preexec_fn=prepare, close_fds=False).succeed()
    own.delete(pod, preexec_fn=prepare, close_fds=False).succeed()


@spec("E-19", "A-18")
def test_an_agent_with_64_descriptors_refuses_what_it_cannot_do_and_goes_on(
    idle_node: Node, pods: Callable[[], Pod], networks: Callable[..., Network]
) -> None:
    idle_node.launcher = ("/usr/bin/prlimit", "--nofile=64:64")
    idle_node.start_agent()
    idle_node.clean = idle_node.state()
    own = networks(idle_node)
    several = [pods() for _ in range(8)]
    for _ in range(3):
        for pod in several:
            own.add(pod).succeed()
        for pod in several:
            own.delete(pod).succeed()


@spec("J-2", "O-3", "E-19")
@pytest.mark.parametrize("closed", [(0,), (2,), (0, 2), (1, 2), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_closed_descriptors_never_end_in_a_message_into_a_socket(
    node: Node, pod: Pod, verb: str, closed: tuple[int, ...]
) -> None:
    def close() -> None:
        for descriptor in closed:
            os.close(descriptor)

    variables = node.cni.variables(verb, pod.container, pod.path, "eth0", "")
    with node.cni.start(variables, {}, preexec_fn=close) as process:
        stdout, _ = process.communicate(b"", timeout=30)
    assert process.returncode != 0
    if 1 not in closed:
        assert stdout.startswith(b"{")
    node.call(pod, "DEL", CONF).succeed()
    assert node.changes() == {}


@spec("E-19")
def test_a_closed_standard_error_does_not_matter(network: Callable[..., Network], pod: Pod) -> None:
    own = network()
    own.add(pod, stderr=None, preexec_fn=lambda: os.close(2)).succeed()
    own.delete(pod, stderr=None, preexec_fn=lambda: os.close(2)).succeed()


@spec("E-19")
def test_standard_output_may_be_a_file(network: Callable[..., Network], pod: Pod, tmp_path: Path) -> None:
    own = network()
    with (tmp_path / "out").open("wb") as out:
        own.add(pod, stdout=out).succeed()
    assert (tmp_path / "out").read_bytes().startswith(b'{"cniVersion"')


@spec("E-19")
def test_the_agents_directory_does_not_matter(idle_node: Node, pod: Pod, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f'cd {gone} && rmdir {gone} && exec "$@"'
    idle_node.launcher = ("/bin/sh", "-c", script, "sh")
    idle_node.start_agent()
    idle_node.call(pod, "ADD", CONF).succeed()
    idle_node.call(pod, "DEL", CONF).succeed()


@spec("J-4", "E-7", "E-17")
@pytest.mark.parametrize("size", [100_000, 131_000])
def test_long_variables_are_taken_or_refused(node: Node, pod: Pod, size: int) -> None:
    for name in ("CNI_ARGS", "CNI_PATH", "CNI_NETNS", "CNI_CONTAINERID", "CNI_IFNAME", "OTHER"):
        outcome = node.call(pod, "ADD", CONF, env={name: "a" * size})
        if outcome.status != 0:
            outcome.refuse(4, 7, 8)
        node.call(pod, "DEL", CONF, env={name: "a" * size} if name == "CNI_CONTAINERID" else {}).succeed()
        assert node.leases() == []
        assert pod.links() == {"lo"}


@spec("J-1", "J-4")
def test_more_input_than_the_limit_is_refused(node: Node, pod: Pod) -> None:
    huge = b'{"name": "' + b"a" * (9 << 20) + b'"}'
    node.call(pod, "ADD", huge).refuse(5, 6, 7)


@pytest.fixture
def small_disk(idle_node: Node) -> Iterator[Callable[..., Path]]:
    """Mounts the node's state directory as a file system of its own; the agent has to be stopped before the end."""

    def mount(options: str) -> Path:
        idle_node.state_dir.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(idle_node.state_dir)], check=True)
        return idle_node.state_dir

    yield mount
    idle_node.stop_agent()
    while os.path.ismount(idle_node.state_dir):
        subprocess.run(["umount", str(idle_node.state_dir)], check=True)


def _fill(directory: Path) -> Path:
    """Leave no byte free."""
    path = directory / "filler"
    with path.open("ab", buffering=0) as filler:
        size = 1 << 20
        while size:
            try:
                filler.write(bytes(size))
            except OSError:
                size //= 2
    return path


@spec("A-18", "D-10", "S-3", "O-3")
def test_on_a_full_disk_no_add_answers_and_every_del_does(
    idle_node: Node, small_disk: Callable[..., Path], pods: Callable[[], Pod]
) -> None:
    disk = small_disk("size=24m")
    idle_node.start_agent()
    idle_node.clean = idle_node.state()
    conf = CONF | {"datapath": "macvlan"}
    first, second = pods(), pods()
    clean = second.state()
    idle_node.call(first, "ADD", CONF).succeed()
    filler = _fill(disk)
    refused = None
    for _ in range(3000):  # what is left of pages already allocated is used up first
        outcome = idle_node.call(second, "ADD", conf)
        if outcome.status != 0:
            refused = outcome.refuse(11, 5)
            break
        idle_node.call(second, "DEL", conf).succeed()
        _fill(disk)
    assert refused is not None
    assert second.state() == clean
    idle_node.cni("STATUS", conf).refuse(50)
    idle_node.call(second, "DEL", conf).succeed()
    idle_node.call(first, "DEL", CONF).succeed()
    assert idle_node.changes() == {}
    filler.unlink()
    deadline = time.monotonic() + 15  # the agent looks for space now and then
    while idle_node.cni("STATUS", conf).status != 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    idle_node.call(second, "ADD", conf).succeed()
    idle_node.call(second, "DEL", conf).succeed()


@spec("A-18")
def test_without_a_free_inode_everything_still_works_or_is_refused(
    idle_node: Node, small_disk: Callable[..., Path], pod: Pod
) -> None:
    disk = small_disk("size=64m,nr_inodes=64")
    idle_node.start_agent()
    idle_node.clean = idle_node.state()
    clean = pod.state()
    taken = []
    try:
        for number in range(100):
            taken.append(disk / f"taken-{number}")
            taken[-1].touch()
    except OSError:
        taken.pop()
    outcome = idle_node.call(pod, "ADD", CONF)
    if outcome.status != 0:
        outcome.refuse(11, 5)
        assert pod.state() == clean
    idle_node.call(pod, "DEL", CONF).succeed()
    assert idle_node.changes() == {}
    for path in taken:
        path.unlink()
    idle_node.call(pod, "ADD", CONF).succeed()
    idle_node.call(pod, "DEL", CONF).succeed()


def _agent_or_nothing(node: Node) -> bool:
    """Whether the agent serves; where it does not it must have said why and ended."""
    process = node.launch_agent()
    while process.poll() is None:
        if node.serves():
            return True
    assert process.returncode != 0
    assert b"underlayd: " in node.log.read_bytes()
    assert b"Traceback" not in node.log.read_bytes()
    node.agent = None
    return False


@spec("A-18", "O-3", "S-3")
@pytest.mark.parametrize("damage", ["read-only", "a file"])
def test_a_state_directory_that_cannot_be_written_stops_adds_and_heals(
    idle_node: Node, small_disk: Callable[..., Path], pod: Pod, damage: str
) -> None:
    if damage == "read-only":
        small_disk("size=8m,ro")
    else:
        idle_node.state_dir.write_text("not a directory")
    clean = pod.state()
    serving = _agent_or_nothing(idle_node)
    idle_node.call(pod, "ADD", CONF).refuse(11)
    idle_node.cni("STATUS", CONF).refuse(50)
    assert pod.state() == clean
    idle_node.call(pod, "DEL", CONF).succeed()
    idle_node.stop_agent() if serving else None
    if damage == "read-only":
        subprocess.run(["umount", str(idle_node.state_dir)], check=True)
    else:
        idle_node.state_dir.unlink()
    idle_node.start_agent()
    idle_node.call(pod, "ADD", CONF).succeed()
    idle_node.call(pod, "DEL", CONF).succeed()


GARBAGE: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "overwritten": lambda path: path.write_bytes(os.urandom(4096)),
    "cut short": lambda path: os.truncate(path, 5000),
    "a text": lambda path: path.write_text("hello\n" * 3000),
}


@spec("D-14", "A-18", "D-3")
@pytest.mark.parametrize("damage", GARBAGE.values(), ids=GARBAGE)
def test_a_damaged_ledger_does_not_keep_attachments_alive(
    own_node: Node, pods: Callable[[], Pod], datapath: str, damage: Callable[[Path], Any]
) -> None:
    conf = CONF | {"datapath": datapath}
    first, second = pods(), pods()
    clean = first.state()
    own_node.call(first, "ADD", conf).succeed()
    own_node.call(second, "ADD", conf).succeed()
    own_node.kill_agent()
    for path in own_node.state_dir.glob("ledger.db*"):
        damage(path) if path.name == "ledger.db" else path.unlink()
    own_node.start_agent()
    own_node.call(first, "DEL", conf).succeed()
    assert first.state() == clean
    own_node.call(second, "DEL", conf).succeed()
    assert own_node.changes() == {}
    own_node.call(first, "ADD", conf).succeed()
    assert first.reaches(GATEWAY4)
    own_node.call(first, "DEL", conf).succeed()


@spec("N-6", "A-19")
def test_a_second_agent_on_one_ledger_refuses_to_start(own_node: Node, pod: Pod) -> None:
    serving = own_node.agent
    other = own_node.launch_agent()
    own_node.agent = serving
    assert other.wait(20) != 0
    assert own_node.serves()
    own_node.call(pod, "ADD", CONF).succeed()
    own_node.call(pod, "DEL", CONF).succeed()


@spec("A-14", "A-12")
def test_an_unusual_range_keeps_its_bounds(network: Callable[..., Network], pod: Pod) -> None:
    own = network(ipam=inline([range4(250, 254)]))
    assert 250 <= int(hosts(own.add(pod).result)[0].rpartition(".")[2]) <= 254
