"""leases, pools, history, version: the same documents from the agent and from the ledger, in four forms."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml

from ..agent.bed.agent import Agent
from ..agent.bed.calls import Runtime
from ..agent.bed.node import Node
from .conftest import Ctl

LEASES = ["ADDRESS", "POD", "IFNAME", "DATAPATH", "POOL", "CONTAINER", "AGE"]
POOLS = ["POOL", "SUBNETS", "SIZE", "LEASED", "QUARANTINED", "RESERVED", "FOREIGN", "FREE"]
SIZE = 255 * 256 - 5  # 10.77.1.0 to 10.77.255.250


def table(text: str) -> list[dict[str, str]]:
    """The rows of a table by their columns' names; columns are as wide as their widest cell."""
    header, *lines = text.splitlines()
    names = header.split()
    starts = [header.index(name) for name in names]
    bounds = list(zip(starts, [*starts[1:], None], strict=True))
    return [{name: line[start:end].strip() for name, (start, end) in zip(names, bounds, strict=True)} for line in lines]


def test_leases_as_a_table(node: Node, running: Agent, ctl: Ctl) -> None:
    done = ctl("leases")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].split() == LEASES
    veth, macvlan = table(done.stdout)
    assert veth["ADDRESS"] == "10.77.1.0"
    assert veth["POD"] == f"shop/{node.pods[0].netns.name}"
    assert veth["CONTAINER"] == node.pods[0].container[:13]
    assert re.fullmatch(r"\d+[sm](\d+s)?", veth["AGE"])
    assert [row["DATAPATH"] for row in (veth, macvlan)] == ["veth", "macvlan"]


def test_leases_as_a_wide_table(node: Node, running: Agent, ctl: Ctl) -> None:
    veth, macvlan = table(ctl("leases", "-o", "wide").stdout)
    assert veth["CONTAINER"] == node.pods[0].container
    assert veth["MAC"] == node.pods[0].links()["eth0"]["address"]
    assert veth["HOST-LINK"].startswith("und")
    assert macvlan["HOST-LINK"] == "-"
    assert veth["MASTER"] == macvlan["MASTER"] == "eth0"
    assert veth["NETNS"] == str(node.pods[0].netns)


def test_leases_as_json_and_yaml_are_one_document(running: Agent, ctl: Ctl) -> None:
    first, second = json.loads(ctl("leases", "-o", "json").stdout), yaml.safe_load(ctl("leases", "-o", "yaml").stdout)
    assert first == second
    assert first[0]["addresses"] == [
        {"address": "10.77.1.0", "prefix_length": 16, "gateway": "10.77.0.1", "pool": "app"}
    ]


def test_pools_say_how_many_addresses_are_left(running: Agent, ctl: Ctl) -> None:
    assert ctl("pools").stdout.splitlines()[0].split() == POOLS
    (row,) = json.loads(ctl("pools", "-o", "json").stdout)
    assert row == {
        "pool": "app",
        "subnets": ["10.77.0.0/16"],
        "size": SIZE,
        "leased": 2,
        "quarantined": 1,
        "reserved": 0,
        "foreign": 0,
        "free": SIZE - 3,
    }


def test_history_tells_who_had_an_address_and_how_it_left(node: Node, running: Agent, ctl: Ctl) -> None:
    rows = table(ctl("history", "10.77.1.2").stdout)
    assert [row["WHAT"] for row in rows] == ["leased", "quarantined"]
    assert rows[1]["REASON"] == "DEL"
    wide = table(ctl("history", "10.77.1.2", "-o", "wide").stdout)
    assert {row["CONTAINER"] for row in wide} == {node.pods[2].container}
    assert json.loads(ctl("history", "10.77.1.2", "-o", "json").stdout)[0]["pod"]["namespace"] == "shop"


def test_an_address_that_nobody_had_has_an_empty_history(running: Agent, ctl: Ctl) -> None:
    assert len(ctl("history", "10.77.200.1").stdout.splitlines()) == 1
    assert ctl("history", "10.77.200.1", "-o", "json").stdout == "[]\n"


def test_version_names_both_programs(running: Agent, ctl: Ctl) -> None:
    own, agent = table(ctl("version").stdout)
    assert own["PROGRAM"] == "underlayctl"
    assert agent == {"PROGRAM": "underlayd", "VERSION": own["VERSION"], "NODE": "node-1"}


@pytest.mark.parametrize("command", [("leases",), ("pools",), ("history", "10.77.1.2")], ids=lambda words: words[0])
@pytest.mark.parametrize("output", ["json", "yaml"])
def test_without_an_agent_the_ledger_gives_the_same_document_and_standard_error_says_so(
    running: Agent, ctl: Ctl, command: tuple[str, ...], output: str
) -> None:
    asked = ctl(*command, "-o", output)
    running.stop()
    read = ctl(*command, "-o", output)
    assert (read.returncode, read.stdout) == (0, asked.stdout)
    assert asked.stderr == ""
    (words,) = read.stderr.splitlines()
    assert words.startswith("underlayctl: no agent answers at ")
    assert words.endswith(f"read from {running.node.ledger}")


def test_a_killed_agents_ledger_is_read_too(running: Agent, ctl: Ctl) -> None:
    running.kill()
    assert len(json.loads(ctl("leases", "-o", "json").stdout)) == 2


def test_version_without_an_agent_names_one_program(absent: Agent, ctl: Ctl) -> None:
    done = ctl("version")
    assert done.returncode == 0
    assert len(table(done.stdout)) == 1
    assert "no agent answers" in done.stderr


def test_a_ledger_of_another_agent_is_never_shown(absent: Agent, ctl: Ctl) -> None:
    done = ctl("--socket", "/nonexistent/agent.sock", "leases")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("underlayctl: no agent answers at /nonexistent/agent.sock")


def test_the_environment_and_the_option_name_the_socket(running: Agent, bare: Ctl) -> None:
    path = str(running.node.socket)
    assert len(table(bare("leases", environment={"UNDERLAY_SOCKET": path}).stdout)) == 2
    assert len(table(bare("--socket", path, "leases", environment={"UNDERLAY_SOCKET": "/nowhere"}).stdout)) == 2


def test_neither_agent_nor_ledger_is_one_line_about_both(agent: Agent, bare: Ctl) -> None:
    config = agent.node.directory / "empty.yaml"
    config.write_text(f"state_dir: {agent.node.directory}/none\nsocket: {agent.node.directory}/none.sock\n")
    done = bare("--config", config, "leases")
    assert done.returncode == 1
    assert done.stdout == ""
    (words,) = done.stderr.splitlines()
    assert "no agent answers" in words
    assert f"{agent.node.directory}/none/ledger.db" in words


def test_an_address_that_is_none_is_refused_by_agent_and_ledger_alike(running: Agent, ctl: Ctl) -> None:
    asked = ctl("history", "10.77.1.999")
    running.stop()
    read = ctl("history", "10.77.1.999")
    for done in (asked, read):
        assert done.returncode == 1
        assert done.stderr == "underlayctl: address: '10.77.1.999' is not an IP address\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("leases", "-o", "xml"),
        ("leases", "--what"),
        ("lease",),
        ("history",),
        ("leases", "more"),
        ("--config",),
        ("install", "--keep", "--force"),
    ],
    ids=" ".join,
)
def test_wrong_arguments_are_one_line_and_status_2(bare: Ctl, arguments: tuple[str, ...]) -> None:
    done = bare(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    (words,) = done.stderr.splitlines()
    assert words.startswith("underlayctl: ")


def test_a_wrong_configuration_that_was_named_is_one_line(agent: Agent, bare: Ctl) -> None:
    config = agent.node.directory / "wrong.yaml"
    config.write_text("pools: [")
    done = bare("--config", config, "leases")
    assert done.returncode == 1
    assert done.stderr.startswith(f"underlayctl: {config}: not valid YAML")
    assert len(done.stderr.splitlines()) == 1


def test_without_arguments_it_explains_itself(bare: Ctl) -> None:
    done = bare()
    assert done.returncode == 2
    assert "Commands:" in done.stderr


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("leases", "-h"), ("install", "--help")], ids=" ".join)
def test_help_is_a_success(bare: Ctl, arguments: tuple[str, ...]) -> None:
    done = bare(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: underlayctl")


def test_a_reader_that_leaves_early_is_no_failure_to_tell_of(running: Agent) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "cni_underlay.cli", "--config", str(running.config), "leases", "-o", "json"]
    with os.fdopen(writer, "wb") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, check=False)
    assert done.stderr == b""


def test_hostile_names_stay_in_their_cell(running: Agent, ctl: Ctl, node: Node) -> None:
    pod = node.make_pod()
    runtime = Runtime(node=node, environment={"CNI_ARGS": "K8S_POD_NAMESPACE=a\nb;K8S_POD_NAME=\x1b[2Jc"})
    runtime.add(pod).succeed()
    try:
        text = ctl("leases").stdout
        assert len(text.splitlines()) == 4
        assert "\x1b" not in text
    finally:
        runtime.delete(pod).succeed()
        node.remove_pod(pod)
