"""Two agents on one node: the second refuses to start, and takes nothing away from the first."""

from .bed.agent import Agent
from .bed.calls import Runtime
from .bed.node import Node, Pod


def other_configuration(node: Node, agent: Agent, **settings: object) -> Agent:
    """A second agent's configuration on the same node."""
    other = Agent(node=node, name="other")
    other.configure(**agent.settings, **settings)
    return other


def test_the_second_agent_on_one_ledger_refuses_and_names_the_first(
    node: Node, agent: Agent, runtime: Runtime, pod: Pod
) -> None:
    before = node.socket.stat().st_ino
    words = other_configuration(node, agent).failure()
    assert len(words.splitlines()) == 1
    assert f"in use by process {agent.pid}" in words
    assert node.socket.stat().st_ino == before
    assert runtime.add(pod).status == 0


def test_the_second_agent_on_one_socket_refuses_though_its_ledger_is_its_own(node: Node, agent: Agent) -> None:
    before = node.socket.stat().st_ino
    words = other_configuration(node, agent, state_dir=str(node.directory / "state2")).failure()
    assert "another process serves" in words
    assert str(node.socket) in words
    assert node.socket.stat().st_ino == before
    assert agent.serves()


def test_an_agent_with_a_ledger_and_a_socket_of_its_own_starts_beside_the_first(node: Node, agent: Agent) -> None:
    places = {"state_dir": str(node.directory / "state2"), "socket": str(node.directory / "second.sock")}
    with other_configuration(node, agent, **places) as other:
        other.start()
        assert agent.serves()


def test_the_first_one_serves_on_after_the_second_was_refused_ten_times(node: Node, agent: Agent) -> None:
    other = other_configuration(node, agent)
    for _ in range(10):
        assert other.failure()
    assert agent.serves()


def test_what_a_killed_agent_left_is_in_nobodys_way(node: Node, agent: Agent) -> None:
    agent.kill()
    assert node.socket.exists()
    agent.start()


def test_a_file_that_is_no_socket_is_not_removed(node: Node, idle_agent: Agent) -> None:
    node.socket.parent.mkdir()
    node.socket.write_text("precious")
    assert "is no socket" in idle_agent.failure()
    assert node.socket.read_text() == "precious"


def test_a_delegate_does_not_inherit_the_ledgers_lock_or_any_other_descriptor(
    node: Node, agent: Agent, runtime: Runtime, pod: Pod
) -> None:
    listing = node.directory / "descriptors"
    node.write_plugin("lister", [f"ls -l /proc/$$/fd > {listing}", "exit 1"])
    runtime.add(pod, cniVersion="1.0.0", ipam={"type": "lister"})
    targets = {line.partition(" -> ")[2].partition(":")[0] for line in listing.read_text().splitlines()[1:]}
    assert targets == {"pipe", str(listing), str(node.bin / "lister")}
