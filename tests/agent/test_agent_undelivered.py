"""An ADD whose answer reaches nobody is taken back; one that somebody has been told of never is."""

import json
import signal

from .bed.agent import Agent, await_true
from .bed.calls import Runtime, finish, hanging
from .bed.node import Node, Pod

DELEGATED = {"cniVersion": "1.0.0", "ipam": {"type": "hang"}}


def delegate_calls(node: Node) -> list[str]:
    return [line.split()[0] for line in (node.directory / "hang.begun").read_text().splitlines()]


def test_an_add_whose_client_was_killed_leaves_nothing(node: Node, agent: Agent, runtime: Runtime, pod: Pod) -> None:
    before = node.kernel()
    gate = hanging(node)
    call = runtime.start("ADD", pod, **DELEGATED)
    await_true(lambda: gate.with_name("hang.begun").exists(), "the delegate runs")
    call.kill()
    finish(call)
    gate.touch()
    (line,) = agent.await_log("an ADD was not answered")
    assert line["container"] == pod.container
    assert line["undone"] is True
    assert agent.leases() == []
    assert pod.addresses() == set()
    assert node.kernel() == before
    assert delegate_calls(node) == ["ADD", "DEL"]


def test_a_repeated_add_that_was_answered_is_not_taken_back_with_the_first(
    node: Node, agent: Agent, runtime: Runtime, pod: Pod
) -> None:
    gate = hanging(node)
    first = runtime.start("ADD", pod, **DELEGATED)
    await_true(lambda: gate.with_name("hang.begun").exists(), "the delegate runs")
    second = runtime.start("ADD", pod, **DELEGATED)
    first.kill()
    finish(first)
    gate.touch()
    assert finish(second).address == "10.78.0.9"
    agent.await_log("an ADD was not answered")
    assert pod.addresses() == {"10.78.0.9"}
    assert len(agent.leases()) == 1


def test_an_attachment_that_a_repeated_add_was_told_of_outlives_the_first_ones_client(
    node: Node, agent: Agent, runtime: Runtime, pod: Pod
) -> None:
    """The first answer is still on its way, larger than a socket's buffer, when the second has arrived."""
    gate = node.directory / "gate"
    given = {
        "cniVersion": "1.0.0",
        "ips": [{"address": "10.78.0.9/24", "gateway": "10.78.0.1"}],
        "dns": {"options": ["x" * 1000] * 1000},
    }
    (node.directory / "given").write_text(json.dumps(given))
    node.write_plugin(
        "giver",
        [
            "[ $CNI_COMMAND = ADD ] || exit 0",
            f"touch {gate}.begun; while [ ! -e {gate} ]; do sleep 0.02; done",
            f"cat {node.directory}/given",
        ],
    )
    runtime.conf.update(cniVersion="1.0.0", ipam={"type": "giver"})
    first = runtime.start("ADD", pod)
    await_true(gate.with_name("gate.begun").exists, "the delegate runs")
    first.send_signal(signal.SIGSTOP)
    gate.touch()
    await_true(lambda: any(lease["addresses"] for lease in agent.leases()), "the lease has its address")
    assert runtime.add(pod).address == "10.78.0.9"
    first.kill()
    finish(first)
    (line,) = agent.await_log("an ADD was not answered")
    assert line["undone"] is False
    assert pod.addresses() == {"10.78.0.9"}
    assert len(agent.leases()) == 1


def test_a_repeat_that_nobody_hears_leaves_the_answered_attachment_alone(
    node: Node, agent: Agent, runtime: Runtime, pod: Pod
) -> None:
    address = runtime.add(pod).address
    for _ in range(20):
        call = runtime.start("ADD", pod)
        call.kill()
        finish(call)
    assert runtime("STATUS").status == 0
    assert pod.addresses() == {address}
    assert [lease["addresses"][0]["address"] for lease in agent.leases()] == [address]


def test_a_call_whose_client_left_before_its_turn_is_not_begun(
    node: Node, agent: Agent, runtime: Runtime, pod: Pod
) -> None:
    agent.process.send_signal(signal.SIGSTOP)
    call = runtime.start("ADD", pod)
    await_true(lambda: _sent(call.pid), "the request stands in the backlog")
    call.kill()
    finish(call)
    agent.process.send_signal(signal.SIGCONT)
    assert runtime("STATUS").status == 0
    assert not [line for line in agent.log("served") if line["verb"] == "ADD"]
    assert agent.leases() == []


def _sent(pid: int) -> bool:
    """Whether the client waits for its answer: it has sent all by then."""
    with open(f"/proc/{pid}/syscall", encoding="ascii") as syscall:  # noqa: PTH123
        return syscall.read().split()[0] in ("7", "271")  # poll, ppoll on x86-64


def test_the_delegates_own_failure_does_not_stop_the_undo(node: Node, agent: Agent, runtime: Runtime, pod: Pod) -> None:
    gate = node.directory / "gate"
    node.write_plugin(
        "stubborn",
        [
            "[ $CNI_COMMAND = ADD ] || exit 3",
            f"touch {gate}.begun; while [ ! -e {gate} ]; do sleep 0.02; done",
            'echo \'{"cniVersion":"1.0.0","ips":[{"address":"10.78.0.9/24"}]}\'',
        ],
    )
    call = runtime.start("ADD", pod, cniVersion="1.0.0", ipam={"type": "stubborn"})
    await_true(lambda: gate.with_name("gate.begun").exists(), "the delegate runs")
    call.kill()
    finish(call)
    gate.touch()
    agent.await_log("an ADD was not answered")
    assert agent.leases() == []
    assert pod.addresses() == set()
