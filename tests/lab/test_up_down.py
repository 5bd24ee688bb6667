"""A lab comes whole or not at all, and goes without a trace, however its builder ended."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cni_underlay.lab import netns, registry
from cni_underlay.lab.errors import LabError
from cni_underlay.lab.fixtures import MakeLab
from cni_underlay.lab.lab import Lab, demolish, sweep
from cni_underlay.lab.process import ProcessId
from cni_underlay.lab.topology_file import from_mapping

SEGMENTS = {"s1": {"subnets": ["10.1.0.0/24", "fd00:1::/64"]}}
NODE = {"segment": "s1", "addresses": ["10.1.0.2", "fd00:1::2"], "agent": False}
VM = {"segment": "s1", "addresses": ["10.1.0.3", "fd00:1::3"]}
GUEST = {"segment": "s1", "kind": "qemu", "addresses": ["10.1.0.4"]}

SMALL: dict[str, object] = {"segments": SEGMENTS, "nodes": {"n": NODE}, "vms": {"v": VM}}
WITH_GUEST: dict[str, object] = {**SMALL, "vms": {"v": VM, "g": GUEST}}
BROKEN: dict[str, object] = {**SMALL, "nodes": {"n": {**NODE, "agent": {"no_such_key": 1}}}}

LabFile = Callable[[dict[str, object]], Path]
LabCommand = Callable[..., subprocess.CompletedProcess[str]]
StartLabCommand = Callable[..., subprocess.Popen[str]]
Traces = Callable[[], list[str]]


def own_network() -> str:
    """Links, addresses and routes of this machine itself."""
    commands = (["link"], ["address"], ["route"], ["-6", "route"])
    return "".join(
        subprocess.run(["ip", *command], capture_output=True, text=True, check=True).stdout for command in commands
    )


def namespaces_of(lab: Lab) -> frozenset[tuple[int, int]]:
    return netns.identities((lab.directory / "netns").iterdir())


def mounted_namespaces() -> set[int]:
    lines = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines() if " nsfs " in line)
    return {int(fields[3].removeprefix("net:[").removesuffix("]")) for fields in lines if fields[3].startswith("net:[")}


def test_nothing_is_left_of_a_lab_with_everything(lab_name: str, traces: Traces) -> None:
    before = own_network()
    with Lab({**WITH_GUEST, "name": lab_name}) as lab:
        lab.node("n").pod("p").serve_http()
        lab.node("n").popen(["sleep", "1000"])
        inodes = {inode for _, inode in namespaces_of(lab)}
        assert len(inodes) == 4  # switch, n, v, n's pod
        assert inodes <= mounted_namespaces()
        # Two HTTP servers (which fork for a connection: one command, not one process), and QEMU.
        assert len({command for pid, _, command in (t.partition(": ") for t in traces()) if pid.isdecimal()}) == 3
        assert own_network() == before
    assert traces() == []
    assert not inodes & mounted_namespaces()
    assert own_network() == before


def test_processes_of_a_lab_are_dead_and_collected_after_it(make_lab: MakeLab) -> None:
    lab = make_lab(SMALL)
    child = lab.vm("v").popen(["sleep", "1000"], stdout=subprocess.PIPE)  # type: ignore[attr-defined]
    lab.down()
    assert child.returncode == -signal.SIGKILL


def test_down_may_be_called_twice(make_lab: MakeLab) -> None:
    lab = make_lab(SMALL)
    lab.down()
    lab.down()


def test_a_lab_can_come_up_again(make_lab: MakeLab) -> None:
    lab = make_lab(SMALL)
    first = lab.id
    lab.down()
    lab.up()
    assert lab.id != first
    assert lab.vm("v").reaches("10.1.0.2")


def test_a_lab_that_is_up_cannot_be_made_again(make_lab: MakeLab) -> None:
    lab = make_lab(SMALL)
    with pytest.raises(LabError, match="is up already"):
        lab.up()


def test_a_lab_that_is_down_says_so() -> None:
    with pytest.raises(LabError, match="is not up"):
        Lab(SMALL).node("n")


def test_two_labs_of_one_topology_do_not_see_each_other(make_lab: MakeLab) -> None:
    one, two = make_lab(SMALL), make_lab(SMALL)
    assert one.id != two.id
    one.in_switch("ip", "link", "set", "n.0", "down")
    assert two.vm("v").reaches("10.1.0.2")
    assert not one.vm("v").reaches("10.1.0.2")
    one.down()
    assert two.vm("v").reaches("fd00:1::2")


def test_a_failed_up_undoes_itself_and_shows_the_agents_log(lab_name: str, traces: Traces) -> None:
    with pytest.raises(LabError, match=r"(?s)the agent of n died:.*no_such_key"):
        Lab({**BROKEN, "name": lab_name}).up()
    assert traces() == []


def test_a_killed_process_leaves_a_lab_that_sweep_takes_down(lab_name: str, traces: Traces) -> None:
    # A pytest run that is killed: the lab's owner is a process that has ended.
    owner = subprocess.Popen(["sleep", "1000"])
    with owner:
        identity = ProcessId.of(owner.pid)
        owner.kill()
    directory = registry.create(from_mapping({**SMALL, "name": lab_name}), "", identity)
    (directory.path / "netns").mkdir()
    netns.create(directory.path / "netns" / "n", {})
    assert directory.id in sweep()
    assert traces() == []


def test_sweep_leaves_labs_whose_process_lives(make_lab: MakeLab) -> None:
    lab = make_lab(SMALL)
    assert lab.id not in sweep()
    assert lab.vm("v").reaches("10.1.0.2")


def test_the_command_brings_a_lab_up_and_down(lab_file: LabFile, lab_command: LabCommand, traces: Traces) -> None:
    file = lab_file(SMALL)
    up = lab_command("up", file)
    assert (up.returncode, up.stderr) == (0, "")
    ping = lab_command("exec", file, "v", "--", "ping", "-c1", "-W2", "fd00:1::2")
    assert "1 received" in ping.stdout
    assert lab_command("exec", file, "v", "--", "sh", "-c", "exit 3").returncode == 3
    assert lab_command("up", file).stderr.endswith("run `down` first\n")
    assert lab_command("down", file).returncode == 0
    assert traces() == []
    again = lab_command("down", file)
    assert (again.returncode, again.stdout) == (0, "")


def test_status_is_a_table_or_json(lab_file: LabFile, lab_command: LabCommand) -> None:
    file = lab_file(SMALL)
    lab_command("up", file)
    assert lab_command("status", file).stdout.splitlines()[1:] == [
        "n      node           s1        10.1.0.2,fd00:1::2   up",
        "v      vm/namespace   s1        10.1.0.3,fd00:1::3   up",
    ]
    report = json.loads(lab_command("status", file, "-o", "json").stdout)
    assert [host["name"] for host in report["hosts"]] == ["n", "v"]
    assert lab_command("list").stdout.count(report["id"]) == 1
    assert lab_command("status", report["id"]).returncode == 0


def test_the_command_names_what_is_not_there(lab_file: LabFile, lab_command: LabCommand, tmp_path: Path) -> None:
    file = lab_file(SMALL)
    assert "0 labs run of it" in lab_command("status", file).stderr
    assert "cannot be read" in lab_command("up", tmp_path / "none").stderr
    lab_command("up", file)
    assert "has no host 'x'" in lab_command("exec", file, "x", "--", "true").stderr
    assert "node n has no pod 'x'" in lab_command("exec", file, "n/x", "--", "true").stderr
    assert "no-such-command" in lab_command("exec", file, "n", "--", "no-such-command").stderr


def test_a_lab_goes_down_when_its_file_is_broken_or_gone(
    lab_file: LabFile, lab_command: LabCommand, traces: Traces
) -> None:
    file = lab_file(SMALL)
    lab_command("up", file)
    file.write_text("broken: [")
    assert lab_command("down", file).returncode == 0
    assert traces() == []


def test_a_terminated_up_undoes_itself(lab_file: LabFile, start_lab_command: StartLabCommand, traces: Traces) -> None:
    up = start_lab_command("up", lab_file(WITH_GUEST))
    wait_until(lambda: any("qemu-system" in trace for trace in traces()))
    up.terminate()
    assert up.wait(30) == 128 + signal.SIGTERM
    assert traces() == []


# What is there when `up` is killed, in the order in which it appears.
MOMENTS = {
    "its directory": "lab.json",
    "the switch": "netns/@switch",
    "the last namespace": "netns/v",
    "QEMU": "pids/qemu.g",
    "an HTTP server": "pids/httpd.v.80",
}


@pytest.mark.parametrize("file", MOMENTS.values(), ids=MOMENTS.keys())
def test_an_up_killed_when_something_appears_is_taken_down(
    file: str,
    lab_name: str,
    lab_file: LabFile,
    lab_command: LabCommand,
    start_lab_command: StartLabCommand,
    traces: Traces,
) -> None:
    topology = lab_file(WITH_GUEST)
    up = start_lab_command("up", topology)
    wait_until(lambda: any(registry.BASE.glob(f"{lab_name}-*/{file}")))
    up.kill()
    up.wait()
    assert traces() != []
    assert lab_command("down", topology).returncode == 0
    assert traces() == []


def test_an_up_killed_at_any_time_is_taken_down(
    lab_file: LabFile, start_lab_command: StartLabCommand, traces: Traces
) -> None:
    topology = lab_file(SMALL)
    started = time.monotonic()
    assert start_lab_command("up", topology).wait(60) == 0
    whole = time.monotonic() - started
    down(topology)
    kills = 12
    for number in range(kills):
        up = start_lab_command("up", topology)
        # Moments spread over a whole run, whatever it does then: this sleep is the thing under test.
        time.sleep(whole * (number + 1) / kills)
        up.kill()
        up.wait()
        down(topology)
        assert traces() == []


def test_a_killed_down_can_be_finished(lab_file: LabFile, start_lab_command: StartLabCommand, traces: Traces) -> None:
    topology = lab_file(SMALL)
    assert start_lab_command("up", topology).wait(60) == 0
    started = time.monotonic()
    assert start_lab_command("down", topology).wait(60) == 0
    whole = time.monotonic() - started
    kills = 6
    for number in range(kills):
        assert start_lab_command("up", topology).wait(60) == 0
        killed = start_lab_command("down", topology)
        time.sleep(whole * (number + 1) / kills)
        killed.kill()
        killed.wait()
        down(topology)
        assert traces() == []


def test_down_waits_for_an_up_that_is_at_work(
    lab_name: str, lab_file: LabFile, start_lab_command: StartLabCommand, traces: Traces
) -> None:
    topology = lab_file(WITH_GUEST)
    up = start_lab_command("up", topology)
    wait_until(lambda: any(registry.BASE.glob(f"{lab_name}-*/pids/qemu.g")))
    down(topology)
    assert up.wait(30) == 0
    assert traces() == []


def test_a_directory_without_identity_is_tidied_up(lab_name: str, traces: Traces) -> None:
    # What a kill inside `create` leaves, and one inside `remove`.
    (registry.BASE / f".new-{lab_name}-abc-{2**22 + 1}-1").mkdir(parents=True)
    (registry.BASE / f"{lab_name}-def").mkdir()
    registry.tidy()
    assert traces() == []


def test_tidying_leaves_a_lab_that_another_process_is_creating(lab_name: str) -> None:
    me = ProcessId.of(os.getpid())
    assert me is not None
    unborn = registry.BASE / f".new-{lab_name}-abc-{me.pid}-{me.started}"
    unborn.mkdir(parents=True)
    try:
        registry.tidy()
        assert unborn.exists()
    finally:
        unborn.rmdir()
        registry.tidy()


def down(topology: Path) -> None:
    for directory in registry.find(str(topology)):
        demolish(directory)
    registry.tidy()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.0005)
