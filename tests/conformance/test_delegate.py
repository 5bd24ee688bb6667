"""SPEC 11: being executed as the IPAM plugin of another."""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .bed.calls import Caller
from .bed.chain import TOOLS
from .bed.forms import OLD, require_form
from .bed.kinds import Json, Option
from .bed.netns import Pod, unique
from .bed.network import VERSIONS, Network, addresses, hosts, inline, range4, range6
from .bed.node import GATEWAY4, MASTER, Node

spec = pytest.mark.spec

IPAM = {"type": "underlay-ipam", "ranges": [[range4()], [range6()]], "routes": [{"dst": "0.0.0.0/0"}]}


@pytest.fixture
def addresses_only(network: Callable[..., Network]) -> Callable[..., Network]:
    """A network whose main plugin is another; our plugin is called for its addresses, by its IPAM name."""

    def make(version: str = "1.1.0", **more: Option) -> Network:
        return network(version=version, plugin="underlay-ipam", type="macvlan", mode="bridge", **{"ipam": IPAM} | more)

    return make


@spec("P-9", "R-1")
@pytest.mark.parametrize("version", VERSIONS)
def test_a_delegate_answers_addresses_and_makes_no_link(
    addresses_only: Callable[..., Network], node: Node, pod: Pod, version: str
) -> None:
    own = addresses_only(version)
    before, kernel = pod.state(), node.host.state()
    result = own.add(pod).result
    require_form(result, version)
    assert "interfaces" not in result
    assert [":" in address for address in hosts(result)] == [False, True]
    if version not in OLD:
        assert not any("interface" in entry for entry in result["ips"])
        assert result["routes"] == IPAM["routes"]
    assert (pod.state(), node.host.state()) == (before, kernel)
    own.delete(pod).succeed()
    assert own.leases() == []


@spec("P-9")
@pytest.mark.parametrize("netns", ["/nowhere", "/dev/null", "dummy", "/proc/self/ns/mnt"])
def test_a_delegate_needs_no_namespace(addresses_only: Callable[..., Network], pod: Pod, netns: str) -> None:
    own = addresses_only()
    result = own.add(pod, netns=netns).result
    previous = result | {"interfaces": [{"name": "eth0", "sandbox": netns}]}
    own.check(pod, netns=netns, previous=previous).succeed()
    own.delete(pod, netns="").succeed()
    assert own.leases() == []


@spec("P-9")
def test_the_interface_name_tells_attachments_apart(addresses_only: Callable[..., Network], pod: Pod) -> None:
    own = addresses_only()
    first, second = own.add(pod).result, own.add(pod, ifname="eth1").result
    assert not set(hosts(first)) & set(hosts(second))
    own.delete(pod).succeed()
    assert [lease["ifname"] for lease in own.leases()] == ["eth1"]


@spec("P-9", "E-20")
def test_the_main_plugins_name_serves_addresses_too(network: Callable[..., Network], node: Node, pod: Pod) -> None:
    own = network(type="macvlan", ipam=IPAM | {"type": "underlay"})
    result = own.add(pod).result
    assert "interfaces" not in result
    assert pod.links() == {"lo"}
    own.status().succeed()
    own.delete(pod).succeed()
    assert node.changes() == {}


@spec("P-9", "A-4")
def test_a_second_add_of_a_delegate_keeps_one_lease(addresses_only: Callable[..., Network], pod: Pod) -> None:
    own = addresses_only()
    first = own.add(pod).result
    again = own.add(pod)
    if again.status == 0:
        assert again.result == first
    assert [entry["address"] for entry in own.leases()[0]["addresses"]] == hosts(first)
    assert len(own.leases()) == 1


@spec("P-9", "C-2", "C-4", "C-8", "C-10")
def test_a_delegate_checks_its_addresses(addresses_only: Callable[..., Network], pod: Pod) -> None:
    own = addresses_only()
    result = own.add(pod).result
    own.check(pod).succeed()
    own.check(pod, previous=None).refuse(7)
    own.check(pod, container="another", previous=result).refuse(100)
    own.check(pod, previous={**result, "ips": result["ips"][1:]}).refuse(100)
    own.delete(pod).succeed()
    own.check(pod, previous=result).refuse(100)


@spec("P-9", "C-1", "G-1", "S-2")
@pytest.mark.parametrize("verb", ["CHECK", "GC", "STATUS"])
def test_a_delegate_keeps_to_the_versions_of_verbs(addresses_only: Callable[..., Network], pod: Pod, verb: str) -> None:
    own = addresses_only("0.3.1")
    own.call(verb, pod, extra={"cni.dev/valid-attachments": []}).refuse(1)


@spec("P-9", "G-2", "G-5", "S-1")
def test_a_delegate_collects_and_tells_its_status(
    addresses_only: Callable[..., Network], pods: Callable[[], Pod]
) -> None:
    own, other = addresses_only(), addresses_only()
    stays, goes = pods(), pods()
    for pod in (stays, goes):
        own.add(pod).succeed()
    other.add(goes).succeed()
    own.status().succeed()
    own.collect((stays, "eth0")).succeed()
    assert [lease["container_id"] for lease in own.leases()] == [stays.container]
    assert len(other.leases()) == 1


@spec("P-9", "A-11", "A-14")
def test_a_delegate_refuses_as_the_main_plugin_does(
    addresses_only: Callable[..., Network], pods: Callable[[], Pod]
) -> None:
    own = addresses_only(ipam=inline([{"subnet": "10.89.0.224/30", "gateway": "10.89.0.225"}]))
    own.add(pods(), extra={"runtimeConfig": {"ips": ["10.89.0.9"]}}).refuse(7)
    own.add(pods(), extra={"runtimeConfig": {"ips": ["10.89.0.226"]}}).succeed()
    own.add(pods()).refuse(11)
    assert len(own.leases()) == 1


@spec("P-9", "A-2")
def test_a_delegate_that_cannot_answer_in_the_old_form_keeps_nothing(
    addresses_only: Callable[..., Network], pod: Pod
) -> None:
    own = addresses_only("0.2.0", ipam=inline([range4(16, 99)], [range4(100, 200)]))
    own.add(pod).refuse(7)
    assert own.leases() == []


@spec("P-9")
@pytest.mark.parametrize("ipam", [None, {}, {"type": "host-local"}], ids=str)
@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
def test_the_delegates_name_without_a_block_of_ours_is_refused(cni: Caller, pod: Pod, verb: str, ipam: Json) -> None:
    conf = {"cniVersion": "1.1.0", "name": "n", "type": "macvlan", "ipam": ipam, "prevResult": {"ips": []}}
    call = {"container": pod.container, "netns": pod.path, "ifname": "eth0"}
    cni(verb, conf, plugin="underlay-ipam", **call).refuse(2, 7)


def _reference(kind: str, bridge: str) -> dict[str, Any]:
    fields: dict[str, dict[str, Any]] = {
        "macvlan": {"master": MASTER, "mode": "bridge"},
        "ptp": {"mtu": 1400},
        "bridge": {"bridge": bridge, "isGateway": True, "hairpinMode": True},
    }
    return {"type": kind, **fields[kind]}


@pytest.fixture
def bridge_name(node: Node) -> Iterator[str]:
    """A name for the bridge that the reference plugin makes and never removes."""
    name = unique("b")
    yield name
    if name in node.host.links():
        node.host.configure(f"link delete {name}")


@spec("P-2", "P-3", "P-7", "P-9")
@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
@pytest.mark.parametrize("kind", ["macvlan", "ptp", "bridge"])
def test_the_reference_plugins_execute_us(
    network: Callable[..., Network], pod: Pod, kind: str, version: str, bridge_name: str
) -> None:
    # ptp and bridge give the gateway's address to an interface of the node: that may not be the segment's.
    base = "10.89.0" if kind == "macvlan" else "10.88.0"
    subnet = {"subnet": f"{base}.0/24", "rangeStart": f"{base}.217", "gateway": f"{base}.1"}
    ipam = {"type": "underlay-ipam", "ranges": [[subnet]], "routes": [{"dst": "0.0.0.0/0"}]}
    own = network(version=version, plugin=kind, ipam=ipam, **_reference(kind, bridge_name))
    tools: dict[str, str | bytes | None] = dict(TOOLS)
    result = own.add(pod, env=tools).result
    require_form(result, version)
    (address,) = addresses(result)
    assert address.startswith(f"{base}.2")
    assert pod.addresses("eth0") == {address}
    assert pod.reaches(f"{base}.1")
    if version >= "0.4.0":
        own.check(pod, env=tools).succeed()
    assert [lease["datapath"] for lease in own.leases()] == ["none"]
    own.delete(pod, env=tools).succeed()
    assert own.leases() == []
    assert pod.links() == {"lo"}


@spec("P-9", "D-3")
@pytest.mark.parametrize("kind", ["macvlan", "ptp", "bridge"])
def test_a_reference_plugins_del_without_a_namespace_frees_the_address(
    network: Callable[..., Network], pod: Pod, kind: str, bridge_name: str
) -> None:
    own = network(version="1.0.0", plugin=kind, ipam=inline([range4()]), **_reference(kind, bridge_name))
    tools: dict[str, str | bytes | None] = dict(TOOLS)
    own.add(pod, env=tools).succeed()
    pod.remove()
    own.delete(pod, netns="", env=tools).succeed()
    assert own.leases() == []
    deadline = time.monotonic() + 5  # the kernel takes namespaces down in the background
    while any(link.startswith("veth") for link in own.node.host.links()):
        assert time.monotonic() < deadline


@spec("P-4", "P-9", "A-2")
def test_a_reference_plugin_undoes_our_lease_when_it_fails(network: Callable[..., Network], pod: Pod) -> None:
    own = network(version="1.0.0", plugin="macvlan", type="macvlan", ipam=inline([range4()]), mode="bridge")
    pod.configure("link add eth0 type bridge")
    assert own.add(pod, env=dict(TOOLS)).status != 0
    own.delete(pod, env=dict(TOOLS)).succeed()
    assert own.leases() == []


@pytest.fixture
def dhcp(node: Node, tmp_path: Path) -> Iterator[Path]:
    """The reference dhcp plugin's daemon on the node, and a server on the segment; the daemon's socket."""
    config, leases = tmp_path / "udhcpd.conf", tmp_path / "udhcpd.leases"
    leases.touch()
    config.write_text(
        f"start 10.89.0.220\nend 10.89.0.229\ninterface br0\nlease_file {leases}\npidfile {tmp_path}/udhcpd.pid\n"
        f"option subnet 255.255.255.0\noption router {GATEWAY4}\noption dns {GATEWAY4}\noption lease 600\n"
    )
    socket = tmp_path / "dhcp.sock"
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = node.switch.spawn(["/usr/bin/busybox", "udhcpd", "-f", "-S", str(config)], **quiet)
    daemon = node.host.spawn(["/usr/lib/cni/dhcp", "daemon", "-socketpath", str(socket)], **quiet)
    try:
        deadline = time.monotonic() + 5
        while not socket.exists():
            assert daemon.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield socket
    finally:
        for process in (daemon, server):
            process.kill()
            process.wait()


@spec("P-2", "P-3", "P-7", "P-10")
def test_dhcp_gives_the_address(network: Callable[..., Network], pod: Pod, dhcp: Path) -> None:
    """The daemon asks through the container's interface, which therefore has to be there before."""
    own = network(version="1.0.0", datapath="macvlan", ipam={"type": "dhcp", "daemonSocketPath": str(dhcp)})
    result = own.add(pod).result
    assert 220 <= int(hosts(result)[0].rpartition(".")[2]) <= 229
    assert pod.reaches(GATEWAY4)
    own.check(pod).succeed()
    own.delete(pod).succeed()
    assert pod.links() == {"lo"}
