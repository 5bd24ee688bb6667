"""What a service manager sees: states, and a listening socket that outlives each agent."""

import os
import signal
import socket
import time

from .bed.agent import Agent, ServiceManager, await_true
from .bed.calls import Runtime, finish
from .bed.node import Node, Pod

# Gives the process the descriptor that stands first in its arguments, as sd_listen_fds(3) describes it.
INHERIT = 'fd=$1; shift; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=agent; exec "$@" 3<&"$fd"'


def launch_with(agent: Agent, descriptor: int, manager: ServiceManager) -> None:
    agent.launch(
        "bash", "-c", INHERIT, "inherit", str(descriptor), environment=manager.environment, pass_fds=(descriptor,)
    )


def test_ready_comes_when_it_serves_and_stopping_when_it_ends(idle_agent: Agent, manager: ServiceManager) -> None:
    idle_agent.launch(environment=manager.environment)
    manager.await_state("READY=1")
    assert idle_agent.serves()
    idle_agent.process.terminate()
    manager.await_state("STOPPING=1")
    assert idle_agent.process.wait(10) == 0


def test_a_reload_is_announced_with_the_time_that_notify_reload_asks_for(
    idle_agent: Agent, manager: ServiceManager
) -> None:
    idle_agent.launch(environment=manager.environment)
    manager.await_state("READY=1")
    before = time.monotonic_ns() // 1000
    idle_agent.reload()
    reloading = manager.await_state("RELOADING=1")
    assert before <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    manager.await_state("READY=1")


def test_the_listening_socket_is_stored_with_the_manager(idle_agent: Agent, manager: ServiceManager) -> None:
    idle_agent.launch(environment=manager.environment)
    assert manager.await_state("FDSTORE=1")["FDNAME"] == "agent"
    (descriptor,) = manager.descriptors
    with socket.socket(fileno=os.dup(descriptor)) as stored:
        assert stored.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        assert stored.getsockname() == str(idle_agent.node.socket)


def test_calls_in_the_backlog_during_a_restart_are_served(
    idle_agent: Agent, manager: ServiceManager, runtime: Runtime, pod: Pod
) -> None:
    idle_agent.launch(environment=manager.environment)
    manager.await_state("FDSTORE=1")
    assert idle_agent.stop() == 0
    waiting = [runtime.start("STATUS"), runtime.start("ADD", pod), runtime.start("STATUS")]
    time.sleep(0.3)  # nothing tells that a call waits: the point is that none of them ends
    assert all(call.poll() is None for call in waiting)
    launch_with(idle_agent, manager.descriptors[0], manager)
    outcomes = [finish(call) for call in waiting]
    assert [outcome.status for outcome in outcomes] == [0, 0, 0]
    assert pod.addresses() == {outcomes[1].address}


def test_calls_survive_a_kill_too_where_the_manager_keeps_the_socket(
    idle_agent: Agent, manager: ServiceManager, runtime: Runtime, pod: Pod
) -> None:
    idle_agent.launch(environment=manager.environment)
    manager.await_state("FDSTORE=1")
    idle_agent.process.send_signal(signal.SIGSTOP)
    call = runtime.start("ADD", pod)
    time.sleep(0.2)  # as above: it waits, in the backlog of the stopped agent or at one of its workers
    idle_agent.kill()
    launch_with(idle_agent, manager.descriptors[0], manager)
    address = finish(call).address
    assert pod.addresses() == {address}


def test_a_stored_socket_that_nobody_can_reach_is_replaced(
    node: Node, idle_agent: Agent, manager: ServiceManager
) -> None:
    idle_agent.launch(environment=manager.environment)
    manager.await_state("FDSTORE=1")
    idle_agent.stop()
    node.socket.unlink()
    launch_with(idle_agent, manager.descriptors[0], manager)
    await_true(idle_agent.serves, "it serves on a new socket")
    assert idle_agent.log("the socket of the last agent cannot be reached any more")


def test_a_socket_that_the_configuration_has_moved_is_replaced(idle_agent: Agent, manager: ServiceManager) -> None:
    idle_agent.launch(environment=manager.environment)
    manager.await_state("FDSTORE=1")
    idle_agent.stop()
    moved = idle_agent.node.directory / "elsewhere.sock"
    idle_agent.configure(socket=str(moved))
    launch_with(idle_agent, manager.descriptors[0], manager)
    await_true(moved.exists, "the socket stands at its new place")


def test_descriptors_that_are_no_socket_of_ours_are_ignored(idle_agent: Agent, manager: ServiceManager) -> None:
    with (idle_agent.node.directory / "plain").open("w") as plain:
        launch_with(idle_agent, plain.fileno(), manager)
        await_true(idle_agent.serves, "it serves on a socket of its own")


def test_a_manager_that_is_gone_is_no_reason_to_fail(idle_agent: Agent) -> None:
    idle_agent.start(environment={"NOTIFY_SOCKET": "/nonexistent/notify"})
    assert idle_agent.stop() == 0


def test_an_abstract_notify_socket_works(idle_agent: Agent) -> None:
    name = f"underlay-test-{os.getpid()}"
    # An abstract name belongs to a network namespace, so both ends have to be in the node's.
    bound = idle_agent.node.inside(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    with bound:
        bound.settimeout(30)
        bound.bind(f"\0{name}")
        idle_agent.launch(environment={"NOTIFY_SOCKET": f"@{name}"})
        assert bound.recv(4096) == b"READY=1"
