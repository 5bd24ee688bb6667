"""DELs that waited on disk: all replayed, before any ADD, and none twice, none wrongly."""

import json
import os
import time

import pytest

from cni_underlay.agent import protocol

from .bed.agent import Agent, await_true
from .bed.calls import Runtime
from .bed.node import Node, Pod

ONE_ADDRESS = [{"name": "app", "quarantine": 0, "ranges": [{"subnet": "10.77.0.0/16", "range": "10.77.5.5"}]}]


def frame(runtime: Runtime, pod: Pod, verb: str = "DEL") -> bytes:
    """A request as the client writes it into the spool."""
    environment = {"argv0": "underlay", **runtime.variables(verb, pod)}
    return protocol.request(protocol.KIND_CNI, environment, json.dumps(runtime.configuration()).encode())


def spool(node: Node, name: str, content: bytes) -> None:
    """Put a file there as the client does: whole, under its name by a rename."""
    node.spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = node.spool / ".writing"
    temporary.write_bytes(content)
    temporary.rename(node.spool / name)


def test_a_del_is_replayed_at_the_start_before_an_add_that_waits_already(
    node: Node, idle_agent: Agent, runtime: Runtime, pod: Pod
) -> None:
    idle_agent.configure(pools=ONE_ADDRESS)
    idle_agent.start()
    assert runtime.add(pod).address == "10.77.5.5"
    idle_agent.kill()
    assert runtime.delete(pod).status == 0
    idle_agent.launch()
    heir = node.make_pod()
    await_true(lambda: runtime.add(heir).status == 0, "the heir has the only address")
    assert heir.addresses() == {"10.77.5.5"}
    await_true(lambda: len(idle_agent.log("served")) >= 2, "both are in the log")
    assert [line["verb"] for line in idle_agent.log("served")][-2:] == ["DEL", "ADD"]


def test_a_del_is_replayed_before_a_later_add_without_a_restart(
    node: Node, idle_agent: Agent, runtime: Runtime
) -> None:
    idle_agent.configure(pools=ONE_ADDRESS)
    idle_agent.start()
    for turn in range(30):  # each time at another moment of the spool's own rhythm
        pod = node.make_pod()
        assert runtime.add(pod).address == "10.77.5.5"
        spool(node, f"{turn:04}.del", frame(runtime, pod))
        node.remove_pod(pod)
    await_true(lambda: not node.spooled(), "the spool is empty")


def test_a_del_is_replayed_soon_without_any_add(node: Node, agent: Agent, runtime: Runtime, pod: Pod) -> None:
    runtime.add(pod)
    spool(node, "1.del", frame(runtime, pod))
    await_true(lambda: not node.spooled(), "the spool is empty", 5)
    assert agent.leases() == []


@pytest.mark.parametrize("datapath", ["veth", "macvlan"])
def test_a_replayed_del_takes_the_interface_too_where_the_namespace_still_stands(
    node: Node, agent: Agent, runtime: Runtime, pod: Pod, datapath: str
) -> None:
    before = node.kernel()
    runtime.conf["datapath"] = datapath
    runtime.add(pod)
    agent.kill()
    runtime.delete(pod)
    agent.start()
    assert "eth0" not in pod.links()
    await_true(lambda: node.kernel() == before, "the node is as it was; its own link on the master lingers a little", 5)


def test_many_are_replayed_in_the_order_they_came(node: Node, idle_agent: Agent, runtime: Runtime) -> None:
    pods = [node.make_pod() for _ in range(12)]
    for pod in pods:
        assert runtime.delete(pod).status == 0
    idle_agent.start()
    served = [line["container"] for line in idle_agent.log("served")]
    assert served == [pod.container for pod in pods]
    (line,) = idle_agent.log("recovered")
    assert line["replayed"] == 12


@pytest.mark.parametrize(
    "content",
    [b"", b"UNL1", os.urandom(300), b"\0" * 4096],
    ids=["empty", "torn header", "noise", "zeros"],
)
def test_a_file_that_is_no_request_is_set_aside_once(node: Node, idle_agent: Agent, content: bytes) -> None:
    spool(node, "1.del", content)
    idle_agent.start()
    assert node.spooled() == ["1.bad"]
    (line,) = idle_agent.log("spooled DEL unreadable")
    assert line["file"].endswith("1.del")
    idle_agent.stop()
    idle_agent.start()
    assert len(idle_agent.log("spooled DEL unreadable")) == 1


def test_a_torn_file_does_not_keep_the_others_from_being_served(
    node: Node, idle_agent: Agent, runtime: Runtime, pod: Pod
) -> None:
    spool(node, "1.del", frame(runtime, pod)[:-10])
    spool(node, "2.del", frame(runtime, pod))
    idle_agent.start()
    assert node.spooled() == ["1.bad"]
    assert [line["verb"] for line in idle_agent.log("served")] == ["DEL"]


def test_nothing_but_dels_is_carried_out_from_there(node: Node, idle_agent: Agent, runtime: Runtime, pod: Pod) -> None:
    spool(node, "1.del", frame(runtime, pod, "ADD"))
    spool(node, "2.del", protocol.request(protocol.KIND_ADMIN, {}, b'{"command": "leases"}'))
    idle_agent.start()
    assert node.spooled() == ["1.bad", "2.bad"]
    assert idle_agent.leases() == []


def test_a_file_of_endless_size_is_not_read(node: Node, idle_agent: Agent) -> None:
    spool(node, "1.del", b"UNL1")
    os.truncate(node.spool / "1.del", 1 << 40)
    idle_agent.start()
    assert node.spooled() == ["1.bad"]


def test_half_written_files_are_left_to_their_writers(node: Node, idle_agent: Agent) -> None:
    node.spool.mkdir(mode=0o700, parents=True)
    (node.spool / ".1.tmp").write_bytes(b"UNL1")
    idle_agent.start()
    assert node.spooled() == [".1.tmp"]


@pytest.mark.parametrize("flaw", ["writable by others", "somebody else's", "a link"])
def test_a_spool_that_others_could_write_to_is_not_trusted(
    node: Node, idle_agent: Agent, runtime: Runtime, pod: Pod, flaw: str
) -> None:
    spool(node, "1.del", frame(runtime, pod))
    if flaw == "writable by others":
        node.spool.chmod(0o777)
    elif flaw == "somebody else's":
        os.chown(node.spool, 65534, 65534)
    else:
        node.spool.rename(node.directory / "elsewhere")
        node.spool.symlink_to(node.directory / "elsewhere")
    idle_agent.start()
    assert node.spooled() == ["1.del"]
    assert idle_agent.log("the spool is not a directory of root's alone")
    assert runtime.add(pod).status == 0


def test_a_del_that_fails_stays_and_is_tried_again(node: Node, agent: Agent, runtime: Runtime, pod: Pod) -> None:
    gate = node.directory / "gate"
    node.write_plugin("moody", [f"[ -e {gate} ] || exit 1"])
    runtime.conf.update(cniVersion="1.0.0", ipam={"type": "moody"})
    spool(node, "1.del", frame(runtime, pod))
    agent.await_log("spooled DEL failed")
    assert node.spooled() == ["1.del"]
    gate.touch()
    spool(node, "2.del", frame(runtime, pod))  # any change of the spool is a reason to try all again
    await_true(lambda: not node.spooled(), "both are served")


def test_a_delegate_that_hangs_in_the_spool_keeps_neither_adds_nor_the_start_waiting_for_ever(
    node: Node, agent: Agent, runtime: Runtime, pod: Pod
) -> None:
    begun = node.directory / "begun"
    node.write_plugin("stuck", [f"touch {begun}", "exec sleep 300"])
    delegated = Runtime(node=node, conf={"cniVersion": "1.0.0", "ipam": {"type": "stuck"}})
    spool(node, "1.del", frame(delegated, node.make_pod()))
    await_true(begun.exists, "the delegate runs")
    start = time.monotonic()
    assert runtime.add(pod).status == 0
    assert time.monotonic() - start < 8
    assert agent.stop() == 0
