"""Nodes with their agents, and pods that the real client adds to them."""

import json
import subprocess
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from cni_underlay.lab import registry, runtime
from cni_underlay.lab.errors import CniError, LabError
from cni_underlay.lab.fixtures import MakeLab
from cni_underlay.lab.lab import Lab
from cni_underlay.lab.node import Node

POOL = {"name": "app", "ranges": [{"subnet": "10.1.0.0/24", "range": "10.1.0.32-10.1.0.63"}]}
TOPOLOGY: dict[str, object] = {
    "segments": {"s": {"subnets": ["10.1.0.0/24"], "gateways": ["10.1.0.1"]}},
    "nodes": {
        "n": {"segment": "s", "addresses": ["10.1.0.2"], "agent": {"pools": [POOL]}},
        "bare": {"segment": "s", "addresses": ["10.1.0.3"], "agent": False},
    },
    "vms": {"v": {"segment": "s", "addresses": ["10.1.0.4"]}},
}
REFERENCE = Path("/usr/lib/cni")

LabCommand = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def lab(make_shared_lab: MakeLab) -> Lab:
    return make_shared_lab(TOPOLOGY)


@pytest.fixture
def node(lab: Lab) -> Node:
    return lab.node("n")


def test_a_pod_and_a_vm_reach_each_other(lab: Lab, node: Node) -> None:
    pod = node.pod("web")
    result = pod.add(node.conflist("veth"))
    assert pod.address in (ip_address(f"10.1.0.{last}") for last in range(32, 64))
    assert result["ips"][0]["address"].startswith(str(pod.address))
    pod.serve_http()
    assert lab.vm("v").fetch(pod.address) == "web\n"
    assert pod.fetch("10.1.0.4") == "v\n"
    pod.check()
    pod.delete()
    assert not lab.vm("v").reaches("10.1.0.32")
    node.remove_pod("web")


def test_a_removed_pod_leaves_no_namespace(node: Node) -> None:
    pod = node.pod("gone")
    sleeper = pod.popen(["sleep", "1000"])
    node.remove_pod("gone")
    assert sleeper.wait(5) == -9
    assert not pod.netns.exists()
    assert not pod.directory.exists()
    with pytest.raises(LabError, match="node n has no pod 'gone'"):
        node.existing_pod("gone")


def test_a_pod_made_again_is_another_container(node: Node) -> None:
    first = node.pod("again").container_id
    node.remove_pod("again")
    assert node.pod("again").container_id != first
    node.remove_pod("again")


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "-a"])
def test_a_name_that_is_no_pods_is_refused(node: Node, name: str) -> None:
    with pytest.raises(LabError, match="is no name for a pod"):
        node.pod(name)


def test_a_killed_agent_is_gone_and_comes_back(node: Node) -> None:
    node.kill_agent()
    assert node.agent.process is None
    pod = node.pod("early")
    with pytest.raises(CniError) as refused:
        pod.add(node.conflist("veth"))
    assert refused.value.code == 11
    node.start_agent()
    pod.add(node.conflist("veth"))
    pod.delete()
    node.remove_pod("early")


def test_a_running_agent_is_not_started_twice(node: Node) -> None:
    with pytest.raises(LabError, match="the agent of n runs already"):
        node.start_agent()


def test_a_stopped_agent_says_so_in_its_log(node: Node) -> None:
    node.stop_agent()
    assert '"msg":"stopped"' in node.agent.log.read_text()
    node.start_agent()


def test_an_agent_takes_another_configuration(node: Node) -> None:
    other = {"name": "other", "ranges": [{"subnet": "10.1.0.0/24", "range": "10.1.0.200-10.1.0.210"}]}
    node.agent.configure({"pools": [POOL, other]})
    node.agent.reload()
    deadline = time.monotonic() + 10
    while '"pools":["app","other"]' not in node.agent.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    pod = node.pod("moved")
    pod.add(runtime.conflist("veth", ["other"]))
    assert pod.address == ip_address("10.1.0.200")
    pod.delete()
    node.remove_pod("moved")


def test_a_node_without_agent_says_so(lab: Lab) -> None:
    with pytest.raises(LabError, match="node bare has no agent"):
        lab.node("bare").start_agent()


def test_verbs_without_a_pod_reach_the_plugin(node: Node) -> None:
    done = node.cni("VERSION", {"cniVersion": "1.1.0", "name": "underlay", "type": "underlay"})
    assert "1.1.0" in json.loads(done.stdout)["supportedVersions"]


def test_a_raw_call_is_answered_as_it_is(node: Node) -> None:
    pod = node.pod("raw")
    conf = {"cniVersion": "1.1.0", "name": "underlay", "type": "underlay"}
    done = pod.cni("ADD", conf, {"CNI_IFNAME": ""})
    assert done.returncode != 0
    assert json.loads(done.stdout)["code"] == 4
    node.remove_pod("raw")


def test_a_plugin_that_is_not_there_is_named(node: Node) -> None:
    with pytest.raises(LabError, match="no plugin 'no-such'"):
        node.cni("VERSION", {"type": "no-such"})


@pytest.mark.skipif(not (REFERENCE / "bridge").exists(), reason="needs containernetworking-plugins")
def test_a_chain_passes_results_on_and_capabilities_to_those_who_asked(lab: Lab, tmp_path: Path) -> None:
    node, mac = lab.node("bare"), "02:00:00:00:00:77"
    ipam = {"type": "host-local", "subnet": "10.99.0.0/24", "dataDir": str(tmp_path)}
    bridge = {"type": "bridge", "bridge": "br0", "ipam": ipam}
    # tuning refuses to run first: it needs the bridge's result.
    tuning = {"type": "tuning", "capabilities": {"mac": True}}
    conf = {"cniVersion": "1.0.0", "name": "chain", "plugins": [bridge, tuning]}
    pod = node.pod("chained")
    pod.add(conf, runtime_config={"mac": mac, "portMappings": []})
    assert mac in pod.output(["ip", "link", "show", "eth0"])
    pod.check()
    pod.output(["ip", "link", "set", "eth0", "down"])
    pod.output(["ip", "address", "flush", "eth0"])
    with pytest.raises(CniError):
        pod.check()
    pod.delete()
    assert "eth0" not in pod.output(["ip", "link"])
    assert not list(tmp_path.glob("chain/10.*"))
    node.remove_pod("chained")


@pytest.mark.skipif(not (REFERENCE / "bridge").exists(), reason="needs containernetworking-plugins")
def test_a_chain_that_fails_in_the_middle_can_be_deleted(lab: Lab, tmp_path: Path) -> None:
    node = lab.node("bare")
    ipam = {"type": "host-local", "subnet": "10.99.0.0/24", "dataDir": str(tmp_path)}
    broken = {"type": "tuning", "sysctl": {"net.ipv4.no_such_key": "1"}}
    conf = {
        "cniVersion": "1.0.0",
        "name": "chain",
        "plugins": [{"type": "bridge", "bridge": "br1", "ipam": ipam}, broken],
    }
    pod = node.pod("half")
    with pytest.raises(CniError, match="no_such_key"):
        pod.add(conf)
    assert list(tmp_path.glob("chain/10.*"))
    pod.delete()
    assert not list(tmp_path.glob("chain/10.*"))
    node.remove_pod("half")


def test_another_process_finds_the_pod_and_what_it_was_added_with(lab: Lab, node: Node) -> None:
    pod = node.pod("shared")
    pod.add(node.conflist("veth"), ifname="net7", args={"EXTRA": "1"})
    found = Lab.attach(registry.find(lab.id)[0]).node("n").existing_pod("shared")
    assert (found.container_id, found.addresses) == (pod.container_id, pod.addresses)
    assert found.cni_environment["CNI_IFNAME"] == "net7"
    assert found.cni_environment["CNI_ARGS"].endswith(";EXTRA=1")
    found.delete()
    assert "net7" not in pod.output(["ip", "link"])
    node.remove_pod("shared")


def test_the_command_adds_and_deletes_pods(lab: Lab, lab_command: LabCommand, tmp_path: Path) -> None:
    added = lab_command("add-pod", lab.id, "n", "shell", "--datapath", "macvlan")
    assert added.stderr == ""
    address = json.loads(added.stdout)["ips"][0]["address"].split("/")[0]
    assert lab.vm("v").reaches(address)
    assert address in lab_command("exec", lab.id, "n/shell", "--", "ip", "-4", "address", "show", "eth0").stdout
    assert ["n/shell", "pod", address, "added"] in [
        s.split() for s in lab_command("status", lab.id).stdout.splitlines()
    ]
    assert lab_command("del-pod", lab.id, "n", "shell").returncode == 0
    assert "has no pod 'shell'" in lab_command("del-pod", lab.id, "n", "shell").stderr
    conf = tmp_path / "x.conflist"
    conf.write_text(json.dumps(lab.node("n").conflist("veth", {"mtu": 1400})))
    assert (
        json.loads(lab_command("add-pod", lab.id, "n", "shell", "--conf", conf).stdout)["interfaces"][-1]["mtu"] == 1400
    )
    assert lab_command("del-pod", lab.id, "n", "shell").returncode == 0
    assert "no.conflist" in lab_command("add-pod", lab.id, "n", "shell", "--conf", tmp_path / "no.conflist").stderr


def test_the_command_shows_an_agents_log(lab: Lab, lab_command: LabCommand) -> None:
    assert '"msg":"serving"' in lab_command("logs", lab.id, "n").stdout
    assert "v keeps no log" in lab_command("logs", lab.id, "v").stderr
