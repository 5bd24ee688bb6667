"""kill -9 at every step: the agent dies at the N-th system call that matters, for each N until none is left.

strace(1) does it from outside, so the agent under test is the one that ships. A killed call is not carried out.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from ..agent.bed.agent import Agent, await_true
from ..agent.bed.calls import Outcome, Runtime
from ..agent.bed.node import Node, Pod

# What changes the kernel (netlink, sysctls), moves between namespaces, makes a commit durable, answers, or logs.
STEPS = "sendto,sendmsg,setns,write,fdatasync,fsync"
ENOUGH = 80  # no verb has so many steps
DATAPATHS = pytest.mark.parametrize("datapath", ["veth", "macvlan"])


def _can_trace() -> bool:
    return (
        bool(shutil.which("strace")) and subprocess.run(["strace", "-o/dev/null", "true"], check=False).returncode == 0
    )


pytestmark = pytest.mark.skipif(not _can_trace(), reason="needs strace, and ptrace(2) to be allowed")


@contextmanager
def killed_at(agent: Agent, step: int, calls: str) -> Iterator[None]:
    """Kill the agent when one of its threads begins its `step`-th such call from here on."""
    inject = f"inject={calls}:signal=KILL:when={step}"
    command = ["strace", "-f", "-p", str(agent.pid), "-o", str(agent.node.directory / "trace"), "-e", inject]
    with subprocess.Popen([*command, "-e", f"trace={calls}"], stderr=subprocess.PIPE) as tracer:
        try:
            assert tracer.stderr is not None
            assert b"attached" in tracer.stderr.readline()
            yield
        finally:
            # Not SIGTERM: strace would detach from each thread in turn, and wait for ever for one that is a zombie.
            tracer.kill()
            tracer.wait()


@dataclass(slots=True)
class Bench:
    """One node whose agent dies again and again."""

    node: Node
    agent: Agent
    runtime: Runtime
    clean: dict[str, object]

    def strike(self, step: int, calls: str, verb: str, pod: Pod) -> tuple[Outcome, bool]:
        """A call during which the agent is killed, or not, where it has fewer steps; the agent serves afterwards."""
        with killed_at(self.agent, step, calls):
            outcome = self.runtime(verb, pod)
        process = self.agent.process
        await_true(lambda: process.poll() is not None or self.agent.serves(), "the agent serves, or is gone")
        survived = process.poll() is None
        if not survived:
            self.agent.start()
        return outcome, survived

    def require_nothing(self, pod: Pod) -> None:
        assert self.agent.leases() == []
        assert "eth0" not in pod.links()
        assert self.node.spooled() == []
        try:
            await_true(lambda: self.node.kernel() == self.clean, "the node is as it was", 5)
        except AssertionError:
            assert self.node.kernel() == self.clean  # and where it is not

    def require_working(self, pod: Pod) -> None:
        """The attachment is whole, and whoever asks again is told of this very one."""
        (lease,) = self.agent.leases()
        addresses = {entry["address"] for entry in lease["addresses"]}
        assert pod.addresses() == addresses
        result = self.runtime.add(pod).result
        assert {entry["address"].partition("/")[0] for entry in result["ips"]} == addresses
        self.runtime("CHECK", pod, prevResult=result).succeed()


@pytest.fixture
def bench(node: Node, agent: Agent, runtime: Runtime) -> Bench:
    agent.configure(quarantine=0, floor=0, pools=[{"name": "app", "ranges": [{"subnet": "10.77.0.0/16"}]}])
    agent.start()
    return Bench(node, agent, runtime, node.kernel())


@DATAPATHS
@pytest.mark.parametrize(
    "calls", [STEPS, "pwrite64", "fdatasync"], ids=["steps", "pages of the ledger", "flush of the ledger"]
)
def test_an_add_killed_at_any_step_leaves_a_working_attachment_or_nothing(
    bench: Bench, datapath: str, calls: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.runtime.conf["datapath"] = datapath
    tally = {"working": 0, "nothing": 0}
    stride = 5 if calls == "pwrite64" else 1  # a page alone changes nothing: samples are enough
    for step in range(1, ENOUGH, stride):
        pod = bench.node.make_pod()
        outcome, survived = bench.strike(step, calls, "ADD", pod)
        told = outcome.status == 0
        if told or bench.agent.leases():
            tally["working"] += 1
            bench.require_working(pod)
        else:
            tally["nothing"] += 1
            assert outcome.code == 11
            bench.require_nothing(pod)
        bench.runtime.delete(pod).succeed()
        bench.require_nothing(pod)
        bench.node.remove_pod(pod)
        if survived:
            break
    else:
        pytest.fail(f"an ADD with more than {ENOUGH} steps")
    assert tally["nothing"] > 0
    assert tally["working"] > 0
    with capsys.disabled():
        print(f"\nADD {datapath}, {calls.partition(',')[0]}...: killed at {sum(tally.values()) - 1} steps: {tally}")  # noqa: T201


@DATAPATHS
def test_a_del_killed_at_any_step_leaves_nothing_once_the_agent_is_back(
    bench: Bench, datapath: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.runtime.conf["datapath"] = datapath
    for step in range(1, ENOUGH):
        pod = bench.node.make_pod()
        bench.runtime.add(pod).succeed()
        outcome, survived = bench.strike(step, STEPS, "DEL", pod)
        assert outcome.status == 0  # served, or spooled
        bench.require_nothing(pod)
        bench.node.remove_pod(pod)
        if survived:
            break
    else:
        pytest.fail(f"a DEL with more than {ENOUGH} steps")
    assert step > 5
    with capsys.disabled():
        print(f"\nDEL {datapath}: killed at {step - 1} steps")  # noqa: T201


@DATAPATHS
def test_a_recovery_killed_at_any_step_is_finished_by_the_next(
    bench: Bench, datapath: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The agent dies in mid-ADD, and again and again while it clears that away."""
    bench.runtime.conf["datapath"] = datapath
    # -D: the tracer stands aside, and the agent is the process that was started.
    command = ["strace", "-D", "-f", "-qq", "-o", str(bench.node.directory / "trace"), "-e", f"trace={STEPS}"]
    deaths = 0
    for step in range(1, 3 * ENOUGH, 4):
        pod = bench.node.make_pod()
        bench.runtime.add(pod).succeed()
        bench.agent.kill()
        bench.runtime.delete(pod).succeed()
        process = bench.agent.launch(*command, "-e", f"inject={STEPS}:signal=KILL:when={step}")
        await_true(lambda process=process: process.poll() is not None or bench.agent.serves(), "it serves or dies")
        deaths += process.poll() is not None
        survived = process.poll() is None
        bench.agent.kill()
        bench.agent.start()
        bench.require_nothing(pod)
        bench.node.remove_pod(pod)
        if survived:
            break
    assert deaths > 3
    with capsys.disabled():
        print(f"\nrecovery {datapath}: killed {deaths} times")  # noqa: T201
