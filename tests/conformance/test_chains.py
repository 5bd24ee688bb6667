"""SPEC 12: in a list of plugins, before others and after another."""

import subprocess
from collections.abc import Callable, Iterator

import pytest

from .bed.chain import Chain
from .bed.kinds import Json
from .bed.netns import Pod, unique
from .bed.network import Network, addresses, hosts, inline, own_interface, range4
from .bed.node import GATEWAY4, Node
from .bed.stub import Stub

spec = pytest.mark.spec

PORT = 18080
SERVE = ["/usr/bin/busybox", "nc", "-l", "-p", "80", "-e", "/bin/echo", "hello"]
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}


@pytest.fixture
def tables(node: Node) -> Iterator[None]:
    """The reference plugins leave their empty chains behind; they are removed after the test.

    To be asked for after the chain, so that they are gone before the node is looked at.
    """
    yield
    node.host.run("nft", "flush", "ruleset")


def _listening(pod: Pod) -> "subprocess.Popen[bytes]":
    server = pod.spawn(SERVE)
    while "0050" not in pod.run("cat", "/proc/net/tcp").stdout + pod.run("cat", "/proc/net/tcp6").stdout:
        assert server.poll() is None
    return server


@spec("H-1", "H-3", "T-2")
def test_portmap_after_us_forwards_a_host_port(
    chain: Callable[..., Chain], node: Node, pod: Pod, datapath: str, tables: None
) -> None:
    mapping = [{"hostPort": PORT, "containerPort": 80, "protocol": "tcp"}]
    own = chain(PORTMAP, datapath=datapath, capabilities={"portMappings": mapping})
    result = own.add(pod)
    assert own_interface(result)
    server = _listening(pod)
    try:
        answer = node.machine.run("busybox", "nc", "-w", "3", "10.89.0.2", str(PORT)).stdout
        assert answer == "hello\n"
    finally:
        server.kill()
        server.wait()
    own.check(pod, besides="portmap")  # whose 1.1.1 looks for the IPv4 rules in IPv6's table
    own.delete(pod)
    assert str(PORT) not in node.host.run("nft", "list", "ruleset").stdout
    assert pod.links() == {"lo"}
    own.delete(pod, netns="")


@spec("H-3", "C-5")
def test_tuning_after_us_changes_the_mac_and_check_passes(chain: Callable[..., Chain], pod: Pod, datapath: str) -> None:
    own = chain(
        {"type": "tuning", "mac": "02:00:00:00:aa:01", "mtu": 1450, "sysctl": {"net.core.somaxconn": "500"}},
        datapath=datapath,
    )
    result = own.add(pod)
    link = pod.link("eth0")
    assert link
    assert own_interface(result)["mac"] == link["address"] == "02:00:00:00:aa:01"
    assert link["mtu"] == 1450
    own.check(pod)
    assert pod.reaches(GATEWAY4)
    own.delete(pod)
    assert pod.links() == {"lo"}


@spec("H-3")
def test_sbr_after_us_finds_interface_addresses_and_gateways(chain: Callable[..., Chain], pod: Pod) -> None:
    own = chain({"type": "sbr"}, datapath="macvlan", ipam=inline([range4()]))
    result = own.add(pod)
    (address,) = hosts(result)
    (rule,) = [rule for rule in pod.ip("rule", "show") if rule["src"] == address]
    (route,) = [route for route in pod.ip("route", "show", "table", rule["table"]) if route["dst"] == "default"]
    assert route["gateway"] == GATEWAY4
    own.delete(pod)
    assert pod.links() == {"lo"}


@spec("H-3")
def test_firewall_after_us_admits_every_address(
    chain: Callable[..., Chain], node: Node, pod: Pod, datapath: str, tables: None
) -> None:
    own = chain({"type": "firewall", "backend": "iptables"}, datapath=datapath)
    result = own.add(pod)
    rules = node.host.run("iptables-save").stdout + node.host.run("ip6tables-save").stdout
    assert all(address in rules for address in hosts(result))
    own.check(pod)
    own.delete(pod)
    rules = node.host.run("iptables-save").stdout + node.host.run("ip6tables-save").stdout
    assert not any(address in rules for address in hosts(result))


@pytest.fixture
def shaping(node: Node) -> None:
    """The bandwidth plugin needs the kernel's tbf and ifb."""
    probe = Pod().create()
    try:
        able = probe.run(
            "tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "1mbit", "burst", "9k", "limit", "9k"
        )
        ifb = probe.run("ip", "link", "add", unique("i"), "type", "ifb")
    finally:
        probe.remove()
    if able.returncode or ifb.returncode:
        pytest.skip("this kernel cannot shape traffic (tbf, ifb)")


@spec("H-3")
@pytest.mark.usefixtures("shaping")
def test_bandwidth_after_us_finds_the_host_end_of_a_veth(chain: Callable[..., Chain], node: Node, pod: Pod) -> None:
    rates = {"ingressRate": 8_000_000, "ingressBurst": 80_000, "egressRate": 8_000_000, "egressBurst": 80_000}
    own = chain(
        {"type": "bandwidth", "capabilities": {"bandwidth": True}},
        datapath="veth",
        capabilities={"bandwidth": rates},
    )
    result = own.add(pod)
    host_end = next(entry["name"] for entry in result["interfaces"] if entry["name"] != "eth0")
    assert "tbf" in node.host.run("tc", "qdisc", "show", "dev", host_end).stdout
    own.check(pod)
    own.delete(pod)
    assert pod.links() == {"lo"}


@spec("H-1", "H-2", "A-10")
@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_after_another_plugin_its_result_is_kept_whole(
    chain: Callable[..., Chain], pod: Pod, datapath: str, version: str, stub: Stub
) -> None:
    family = {"version": "4"} if version < "1.0.0" else {}
    more = {"mtu": 9000, "socketPath": "/run/vhost.sock", "pciID": "0000:04:00.5"} if version == "1.1.0" else {}
    first = {
        "cniVersion": version,
        "interfaces": [
            {"name": "br-first", "mac": "02:00:00:00:00:31"},
            {"name": "net0", "mac": "02:00:00:00:00:32", "sandbox": pod.path, **more},
        ],
        "ips": [{**family, "address": "192.0.2.5/24", "gateway": "192.0.2.1", "interface": 1}],
        "routes": [{"dst": "198.51.100.0/24", "gw": "192.0.2.1"}],
        "dns": {"nameservers": ["192.0.2.53"], "search": ["example.org"]},
    }
    # The stub's interface is made by hand.
    pod.configure("link add net0 type bridge", "addr add 192.0.2.5/24 dev net0", "link set net0 up")
    pod.configure("route add 198.51.100.0/24 via 192.0.2.1")
    stub.says("ADD", first)
    own = chain(before=({"type": stub.name},), version=version, datapath=datapath, dns={"nameservers": ["10.89.0.1"]})
    result = own.add(pod)
    assert result["interfaces"][:2] == first["interfaces"]
    assert result["ips"][0] == first["ips"][0]
    assert result["routes"][0] == first["routes"][0]
    assert result["dns"] == first["dns"]
    ours = [entry for entry in result["ips"][1:] if result["interfaces"][entry["interface"]]["name"] == "eth0"]
    assert [entry["address"] for entry in ours] == addresses(result)[1:]
    assert len(ours) == 2
    if version >= "0.4.0":
        own.check(pod)
    own.delete(pod)
    assert stub.calls == (["ADD", "CHECK", "DEL"] if version >= "0.4.0" else ["ADD", "DEL"])


@spec("H-1", "H-2")
def test_nothing_of_a_previous_result_is_repeated(network: Callable[..., Network], pods: Callable[[], Pod]) -> None:
    route = {"dst": "0.0.0.0/0", "gw": GATEWAY4}
    own = network(datapath="macvlan", ipam=inline([range4()], routes=[route]))
    first = own.add(pods()).result
    previous = {"cniVersion": "1.1.0", "interfaces": [], "ips": [], "routes": first["routes"]}
    result = own.add(pods(), extra={"prevResult": previous}).result
    assert result["routes"].count(first["routes"][0]) == 1


@spec("H-2", "J-8")
@pytest.mark.parametrize(
    "previous",
    [
        {"cniVersion": "9.9.9", "ips": []},
        {"cniVersion": "1.1.0", "ips": "none"},
        {"cniVersion": "1.1.0", "ips": [{"address": "x"}]},
        {"cniVersion": "1.1.0", "ips": [{"address": "192.0.2.1/24", "interface": 4}], "interfaces": [{"name": "a"}]},
        {"cniVersion": "1.1.0", "ips": [{"address": "192.0.2.1/24", "interface": -1}], "interfaces": [{"name": "a"}]},
        {"cniVersion": "1.1.0", "routes": [{"dst": "x"}]},
    ],
    ids=str,
)
def test_a_previous_result_that_cannot_be_understood_is_refused_by_add(
    network: Callable[..., Network], pod: Pod, previous: Json
) -> None:
    own = network()
    own.add(pod, extra={"prevResult": previous}).refuse(6, 7)
    assert own.leases() == []
    assert pod.links() == {"lo"}


@spec("H-4", "D-8", "T-2")
def test_a_chain_whose_later_plugin_failed_is_taken_down_whole(
    chain: Callable[..., Chain], node: Node, pod: Pod, datapath: str, stub: Stub
) -> None:
    before = pod.state()
    stub.fails("ADD", 88, "the last one refuses")
    own = chain({"type": stub.name}, datapath=datapath)
    own.try_add(pod).refuse(88)
    own.delete(pod)
    own.delete(pod, netns="")
    assert pod.state() == before
    assert node.changes() == {}
    assert stub.calls == ["ADD", "DEL", "DEL"]
