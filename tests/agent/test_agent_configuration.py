"""agent.yaml as admins get it wrong, at the start and at a reload; and what a reload changes."""

import json
from typing import Any

import pytest

from .bed.agent import Agent
from .bed.calls import Runtime, finish
from .bed.node import POOLS, Node

SECOND = {"name": "second", "ranges": [{"subnet": "10.79.0.0/24"}]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pools: [", "not valid YAML"),
        ("- a\n- b\n", "a mapping of keys is expected"),
        ("sokket: /run/x\n", "unknown key 'sokket'"),
        ("socket: run/agent.sock\n", "socket: 'run/agent.sock' is not an absolute path"),
        ("state_dir: 7\n", "state_dir: 7 is not an absolute path"),
        ("http: 127.0.0.1\n", "http: '127.0.0.1' is not ADDRESS:PORT"),
        ("http: 127.0.0.1:99999\n", "is not ADDRESS:PORT"),
        ("log_level: loud\n", "log_level: 'loud' is none of"),
        ("quarantine: soon\n", "quarantine"),
        ("floor: 10m\nquarantine: 1m\n", "floor"),
        ("exhausted_is_not_ready: maybe\n", "exhausted_is_not_ready"),
        ("node: a b\n", "node: 'a b' is not a host name"),
        ("pools: [{name: app}]\n", "a pool needs at least one range"),
        ("pools: [{name: app, ranges: [{subnet: 10.7.0.0/33}]}]\n", "10.7.0.0/33"),
        ("\x00", "not valid YAML"),
        ("&a [*a]\n", "a mapping of keys is expected"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_that_names_it(
    node: Node, idle_agent: Agent, text: str, words: str
) -> None:
    idle_agent.config.write_text(text)
    said = idle_agent.failure()
    assert len(said.splitlines()) == 1
    assert said.startswith("underlayd: ")
    assert str(idle_agent.config) in said
    assert words in said
    assert not node.socket.exists()


def test_a_missing_file_that_was_asked_for_is_refused(idle_agent: Agent) -> None:
    idle_agent.config.unlink()
    assert "No such file" in idle_agent.failure()


def test_a_directory_in_the_files_place_is_refused(idle_agent: Agent) -> None:
    idle_agent.config.unlink()
    idle_agent.config.mkdir()
    assert "directory" in idle_agent.failure()


def test_pools_of_the_directory_beside_it_are_read_too_but_no_editors_leavings(node: Node, idle_agent: Agent) -> None:
    folder = node.directory / "pools.d"
    folder.mkdir()
    (folder / "second.yaml").write_text(json.dumps({"pools": [SECOND]}))
    (folder / ".#second.yaml").symlink_to("nobody@nowhere")
    (folder / "README").write_text("not: [yaml")
    idle_agent.start()
    assert [row["pool"] for row in idle_agent.ask("pools")] == ["app", "second"]


def test_a_wrong_file_beside_it_is_named(node: Node, idle_agent: Agent) -> None:
    folder = node.directory / "pools.d"
    folder.mkdir()
    (folder / "second.yaml").write_text(json.dumps({"pools": [{**SECOND, "name": "app"}]}))
    assert str(folder / "second.yaml") in idle_agent.failure()


def test_keys_without_a_value_have_their_defaults(idle_agent: Agent) -> None:
    idle_agent.configure(pools=None, quarantine=None, node=None, log_level=None)
    idle_agent.start()
    assert idle_agent.ask("pools") == []


def test_a_state_directory_that_cannot_be_made_is_refused(node: Node, idle_agent: Agent) -> None:
    (node.directory / "file").touch()
    idle_agent.configure(state_dir=str(node.directory / "file" / "state"))
    assert str(node.directory / "file") in idle_agent.failure()


def test_a_socket_path_that_is_too_long_is_refused(node: Node, idle_agent: Agent) -> None:
    idle_agent.configure(socket=f"{node.directory}/{'s' * 120}")
    assert "socket: cannot listen on" in idle_agent.failure()


def test_a_socket_directory_that_cannot_be_made_is_refused(node: Node, idle_agent: Agent) -> None:
    (node.directory / "file").touch()
    idle_agent.configure(socket=str(node.directory / "file" / "agent.sock"))
    assert "socket: cannot listen on" in idle_agent.failure()


def test_a_reload_brings_new_pools_and_takes_old_ones_away(node: Node, agent: Agent, runtime: Runtime) -> None:
    agent.configure(pools=[SECOND])
    agent.reload()
    (line,) = agent.await_log("reloaded")
    assert line["pools"] == ["second"]
    assert runtime.add(node.make_pod(), ipam={"type": "underlay-ipam", "pools": ["second"]}).address == "10.79.0.2"
    refused = runtime.add(node.make_pod())
    assert refused.code == 7
    assert "second" in refused.error["msg"]


def test_a_lease_outlives_its_pool(node: Node, agent: Agent, runtime: Runtime) -> None:
    pod = node.make_pod()
    address = runtime.add(pod).address
    agent.configure(pools=[SECOND])
    agent.reload()
    agent.await_log("reloaded")
    assert agent.leases()[0]["addresses"][0]["address"] == address
    assert runtime.delete(pod).status == 0
    assert agent.leases() == []


@pytest.mark.parametrize("text", ["pools: [", "sokket: /run/x\n", "pools: [{name: app}]\n", ""])
def test_a_wrong_reload_keeps_the_old_configuration_and_says_so(
    node: Node, agent: Agent, runtime: Runtime, text: str
) -> None:
    agent.config.write_text(text)
    agent.reload()
    if text:
        (line,) = agent.await_log("reload refused, the old configuration stays")
        assert str(agent.config) in line["error"]
        assert runtime.add(node.make_pod()).status == 0
    else:  # an empty file is a valid one
        assert agent.await_log("reloaded")[0].get("pools") is None


def test_a_reload_says_which_changes_need_a_restart(node: Node, agent: Agent) -> None:
    agent.configure(log_level="error", http="127.0.0.1:1234")
    agent.reload()
    assert agent.await_log("reloaded")[0]["needs_restart"] == ["http", "log_level"]
    assert agent.serves()


def test_requests_during_many_reloads_see_one_configuration_or_the_other(
    node: Node, agent: Agent, runtime: Runtime
) -> None:
    calls: list[Any] = []
    for turn in range(20):
        agent.configure(pools=POOLS if turn % 2 else [*POOLS, SECOND])
        agent.reload()
        calls.append(runtime.start("STATUS"))
    assert [finish(call).status for call in calls] == [0] * len(calls)
