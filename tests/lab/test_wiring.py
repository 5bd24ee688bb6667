"""The lines that make a lab's network, without a kernel."""

from pathlib import Path

from cni_underlay.lab import wiring
from cni_underlay.lab.topology_file import from_mapping

TOPOLOGY = from_mapping(
    {
        "segments": {
            "s1": {"subnets": ["10.1.0.0/24", "fd00:1::/64"], "gateways": ["10.1.0.1", "fd00:1::1"], "mtu": 9000}
        },
        "nodes": {"n": {"segment": "s1", "addresses": ["10.1.0.2", "fd00:1::2"]}},
        "vms": {"g": {"segment": "s1", "addresses": ["10.1.0.3"], "kind": "qemu"}},
    }
)


def test_every_port_and_bridge_has_the_segments_mtu() -> None:
    lines = list(wiring.switch(TOPOLOGY, Path("/netns")))
    assert "link set s1 mtu 9000 up" in lines
    assert "link add n.0 type veth peer name eth0 mtu 9000 netns /netns/n" in lines
    assert "link set n.0 mtu 9000 master s1 up" in lines


def test_a_guest_is_on_a_tap() -> None:
    lines = list(wiring.switch(TOPOLOGY, Path("/netns")))
    assert "tuntap add dev g.0 mode tap" in lines
    assert "link set g.0 mtu 9000 master s1 up" in lines


def test_a_host_gets_addresses_before_it_is_up_and_routes_after() -> None:
    assert list(wiring.host(TOPOLOGY.nodes[0])) == [
        "address add 10.1.0.2/24 dev eth0 broadcast +",
        "address add fd00:1::2/64 dev eth0 nodad",
        "link set eth0 up",
        "route add default via 10.1.0.1",
        "route add default via fd00:1::1",
    ]


def test_nodes_forward_and_vms_do_not() -> None:
    assert wiring.sysctls(TOPOLOGY.nodes[0])["ipv4/ip_forward"] == "1"
    assert "ipv4/ip_forward" not in wiring.sysctls(TOPOLOGY.vms[0])


def test_the_longest_host_name_makes_a_legal_port_name() -> None:
    assert len(wiring.port_name("h" * 12, 9)) < 16  # IFNAMSIZ, with its NUL
