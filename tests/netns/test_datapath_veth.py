"""veth on the real kernel: who reaches whom, at once, and from which address."""

import re
import threading
import time
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from cni_underlay.errors import InvalidConfigError
from cni_underlay.records import Route

from . import values
from .segment import Machine, Node, Segment, together
from .traffic import Echo, Listen, datagram_socket

FAST = 200.0  # milliseconds; a proxied answer that waits for proxy_delay takes up to 800


def test_a_machine_and_a_pod_reach_each_other_at_once(segment: Segment, node: Node, vm: Machine) -> None:
    pod = segment.pod()
    node.datapath.create(values.wiring(20), pod.descriptor)
    assert vm.ping("10.9.0.20") < FAST
    assert vm.ping("2001:db8:9::14") < FAST
    assert pod.ping("10.9.0.9") < FAST
    assert pod.ping("2001:db8:9::9") < FAST


def test_a_pod_reaches_a_machine_that_never_heard_of_it(segment: Segment, node: Node, vm: Machine) -> None:
    pod = segment.pod()
    node.datapath.create(values.wiring(20), pod.descriptor)
    assert pod.ping("10.9.0.9") < FAST
    assert pod.ping("2001:db8:9::9") < FAST


def test_the_node_and_its_pod_reach_each_other_at_once(segment: Segment, node: Node) -> None:
    pod = segment.pod()
    node.datapath.create(values.wiring(20), pod.descriptor)
    assert node.ping("10.9.0.20") < FAST
    assert node.ping("2001:db8:9::14") < FAST
    assert pod.ping(node.address4) < FAST
    assert pod.ping(node.address6) < FAST


def test_two_pods_of_one_node_reach_each_other(segment: Segment, node: Node) -> None:
    first, second = segment.pod(), segment.pod()
    node.datapath.create(values.wiring(20), first.descriptor)
    node.datapath.create(values.wiring(21), second.descriptor)
    assert first.ping("10.9.0.21") < FAST
    assert first.ping("2001:db8:9::15") < FAST


def test_pods_of_two_nodes_reach_each_other(segment: Segment, node: Node) -> None:
    other = segment.node(3)
    first, second = segment.pod(), segment.pod()
    node.datapath.create(values.wiring(20), first.descriptor)
    other.datapath.create(values.wiring(21), second.descriptor)
    assert first.ping("10.9.0.21") < FAST
    assert second.ping("2001:db8:9::14") < FAST


def test_the_gateway_answers_at_once(segment: Segment, node: Node) -> None:
    segment.vm(1)
    pod = segment.pod()
    node.datapath.create(values.wiring(20), pod.descriptor)
    assert pod.ping("10.9.0.1") < FAST
    assert pod.ping("2001:db8:9::1") < FAST


def test_the_pod_sees_the_node_under_its_real_address(segment: Segment, node: Node, listen: Listen) -> None:
    pod = segment.pod()
    node.datapath.create(values.wiring(20), pod.descriptor)
    seen = listen(pod, "eth0", "icmp or icmp6")
    node.ping("10.9.0.20")
    node.ping("2001:db8:9::14")
    lines = seen("echo reply", count=2)
    assert any(f"10.9.0.20 > {node.address4}" in line for line in lines)
    assert any(f"2001:db8:9::14 > {node.address6}" in line for line in lines)


def test_the_pod_is_reached_where_the_node_answers_only_for_addresses_of_the_asked_interface(
    segment: Segment, node: Node, vm: Machine
) -> None:
    """kube-proxy's strict ARP: arp_ignore=1, arp_announce=2."""
    node.sysctl("ipv4/conf/all/arp_ignore", "1")
    node.sysctl("ipv4/conf/all/arp_announce", "2")
    pod = segment.pod()
    node.datapath.create(values.wiring(20), pod.descriptor)
    assert pod.ping("10.9.0.9") < FAST
    assert vm.ping("10.9.0.20") < FAST
    assert node.ping("10.9.0.20") < FAST


def test_a_node_that_filters_by_reverse_path_serves_its_pods(segment: Segment, node: Node, vm: Machine) -> None:
    for name in ("all", "default", "eth0"):
        node.sysctl(f"ipv4/conf/{name}/rp_filter", "1")
    pod = segment.pod()
    node.datapath.create(values.wiring(20), pod.descriptor)
    assert vm.ping("10.9.0.20") < FAST
    assert node.ping("10.9.0.20") < FAST


def test_the_answer_is_what_the_kernel_has(segment: Segment, node: Node) -> None:
    pod = segment.pod()
    wired = node.datapath.create(values.wiring(20), pod.descriptor)
    host, own = wired.links
    assert host.name == values.wiring(20).host_ifname
    assert (host.mac, host.mtu, host.sandboxed) == (node.mac(host.name), 1500, False)
    assert (own.name, own.mac, own.mtu, own.sandboxed) == ("eth0", pod.mac(), 1500, True)
    assert [endpoint.interface for endpoint in wired.addresses] == [
        ip_interface("10.9.0.20/32"),
        ip_interface("2001:db8:9::14/128"),
    ]
    assert [endpoint.gateway for endpoint in wired.addresses] == [ip_address("169.254.1.1"), ip_address("fe80::1")]
    assert [route.dst for route in wired.routes] == [ip_network("0.0.0.0/0"), ip_network("::/0")]
    assert "default via 169.254.1.1 dev eth0" in pod.ip("route")
    assert "default via fe80::1 dev eth0" in pod.ip("-6", "route")


def test_no_address_of_the_pod_is_tentative(segment: Segment, node: Node) -> None:
    pod = segment.pod()
    node.datapath.create(values.wiring(20), pod.descriptor)
    flags = [address for link in pod.json("addr", "show", "dev", "eth0") for address in link["addr_info"]]
    assert {address["local"] for address in flags if address["family"] == "inet6"} == {
        "2001:db8:9::14",
        "fe80::75:aff:fe09:14",
    }
    assert not [address for address in flags if address.get("tentative") or address.get("dadfailed")]


def test_both_ends_carry_the_attachments_mark(segment: Segment, node: Node) -> None:
    pod = segment.pod()
    wiring = values.wiring(20)
    node.datapath.create(wiring, pod.descriptor)
    mark = f"cni-underlay:{wiring.attachment.digest}"
    assert pod.json("link", "show", "dev", "eth0")[0]["ifalias"] == mark
    assert node.json("link", "show", "dev", wiring.host_ifname)[0]["ifalias"] == mark


def test_the_mac_follows_from_the_address_and_is_the_same_again(segment: Segment, node: Node) -> None:
    first, second = segment.pod(), segment.pod()
    wiring = values.wiring(20)
    node.datapath.create(wiring, first.descriptor)
    mac = first.mac()
    node.datapath.delete(values.lease(wiring), first.descriptor)
    node.datapath.create(wiring, second.descriptor)
    assert second.mac() == mac


def test_a_requested_mac_is_set_and_told(segment: Segment, node: Node) -> None:
    pod = segment.pod()
    wired = node.datapath.create(values.wiring(20, mac="02:00:00:00:be:ef"), pod.descriptor)
    assert wired.links[-1].mac == pod.mac() == "02:00:00:00:be:ef"


def test_the_mtu_is_the_masters_unless_another_is_asked_for(segment: Segment, node: Node) -> None:
    node.ip("link", "set", "eth0", "mtu", "1400")
    first, second = segment.pod(), segment.pod()
    assert node.datapath.create(values.wiring(20), first.descriptor).links[-1].mtu == 1400
    asked = values.wiring(21, mtu=1300)
    assert node.datapath.create(asked, second.descriptor).links[-1].mtu == 1300
    assert second.json("link", "show", "dev", "eth0")[0]["mtu"] == 1300
    assert node.json("link", "show", "dev", asked.host_ifname)[0]["mtu"] == 1300


def test_the_pods_name_may_be_one_that_the_node_has_too(segment: Segment, node: Node) -> None:
    pod = segment.pod()
    assert node.json("link", "show", "dev", "eth0")
    node.datapath.create(values.wiring(20), pod.descriptor)
    assert pod.json("link", "show", "dev", "eth0")
    assert node.ping("10.9.0.20") < FAST


def test_routes_asked_for_go_by_the_node_with_the_subnet_where_no_default_is_among_them(
    segment: Segment, node: Node
) -> None:
    pod = segment.pod()
    routes = (
        Route(dst=ip_network("10.50.0.0/16")),
        Route(dst=ip_network("10.60.0.0/16"), gw=ip_address("10.9.0.254"), mtu=1280, priority=77),
    )
    wired = node.datapath.create(values.wiring(20, versions=(4,), routes=routes), pod.descriptor)
    hop = ip_address("169.254.1.1")
    assert [(str(route.dst), route.gw) for route in wired.routes] == [
        ("10.50.0.0/16", hop),
        ("10.60.0.0/16", hop),
        ("10.9.0.0/24", hop),
    ]
    shown = pod.ip("route")
    assert re.search(r"10\.60\.0\.0/16 via 169\.254\.1\.1 dev eth0 .*metric 77 .*mtu 1280", shown)
    assert "default" not in shown


def test_a_default_among_the_routes_needs_no_subnet(segment: Segment, node: Node) -> None:
    pod = segment.pod()
    routes = (Route(dst=ip_network("0.0.0.0/0")),)
    wired = node.datapath.create(values.wiring(20, versions=(4,), routes=routes), pod.descriptor)
    assert [str(route.dst) for route in wired.routes] == ["0.0.0.0/0"]


def test_a_second_interface_of_the_container_stands_behind_the_first(segment: Segment, node: Node, vm: Machine) -> None:
    pod = segment.pod()
    node.datapath.create(values.wiring(20), pod.descriptor)
    wired = node.datapath.create(values.wiring(21, ifname="eth1"), pod.descriptor)
    assert all(route.priority is not None and route.priority > 1000 for route in wired.routes)
    defaults = [line for line in pod.ip("route").splitlines() if line.startswith("default")]
    assert [("eth1" in line, "metric" in line) for line in defaults] == [(False, False), (True, True)]
    assert vm.ping("10.9.0.20") < FAST
    assert vm.ping("10.9.0.21") < FAST


def test_a_namespace_with_ipv6_off_gets_it_on_our_interface_alone(segment: Segment, node: Node, vm: Machine) -> None:
    pod = segment.pod()
    for name in ("all", "default"):
        pod.sysctl(f"ipv6/conf/{name}/disable_ipv6", "1")
    pod.ip("link", "add", "other0", "type", "veth", "peer", "name", "other1")
    node.datapath.create(values.wiring(20), pod.descriptor)
    assert vm.ping("2001:db8:9::14") < FAST
    assert pod.sysctl("ipv6/conf/other0/disable_ipv6") == "1"
    assert pod.sysctl("ipv6/conf/all/disable_ipv6") == "1"


def test_an_ipv4_pod_works_where_ipv6_is_off(segment: Segment, node: Node, vm: Machine) -> None:
    pod = segment.pod()
    for machine in (pod, node):
        for name in ("all", "default"):
            machine.sysctl(f"ipv6/conf/{name}/disable_ipv6", "1")
    node.datapath.create(values.wiring(20, versions=(4,)), pod.descriptor)
    assert vm.ping("10.9.0.20") < FAST
    assert "inet6" not in pod.ip("addr", "show", "dev", "eth0")


def test_an_ipv6_pod_needs_no_ipv4(segment: Segment, node: Node, vm: Machine) -> None:
    pod = segment.pod()
    wired = node.datapath.create(values.wiring(20, versions=(6,)), pod.descriptor)
    assert [str(route.dst) for route in wired.routes] == ["::/0"]
    assert vm.ping("2001:db8:9::14") < FAST
    assert node.ping("2001:db8:9::14") < FAST


def test_thirty_two_pods_at_once_are_all_reached(segment: Segment, node: Node, vm: Machine) -> None:
    pods = [segment.pod() for _ in range(32)]
    together(lambda i: node.datapath.create(values.wiring(100 + i), pods[i].descriptor), range(32))
    assert all(vm.hears(f"10.9.0.{100 + i}") for i in range(32))


def test_the_first_packet_after_add_is_not_lost_while_other_adds_run(segment: Segment, node: Node, echo: Echo) -> None:
    """A pod's host end that is not yet activated drops its answers, and the pod asks again after a second."""
    echo(node, "10.9.0.2")
    stop = threading.Event()

    def churn(number: int) -> None:
        pod, wiring = segment.pod(), values.wiring(number)
        while not stop.is_set():
            node.datapath.create(wiring, pod.descriptor)
            node.datapath.delete(values.lease(wiring), pod.descriptor)

    threads = [threading.Thread(target=churn, args=(200 + number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        slow = []
        for number in range(20, 60):
            pod = segment.pod()
            node.datapath.create(values.wiring(number), pod.descriptor)
            with pod.inside(datagram_socket) as client:
                client.settimeout(3)
                start = time.monotonic()
                client.sendto(b"?", ("10.9.0.2", 7777))
                client.recv(1)
                slow += [spent] if (spent := time.monotonic() - start) > 0.5 else []
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not slow


@pytest.mark.parametrize("name", ["lo", "all", "default", "eth%d"])
def test_a_name_with_a_meaning_in_the_kernel_is_refused(segment: Segment, node: Node, name: str) -> None:
    pod = segment.pod()
    before = pod.dump(), node.dump()
    with pytest.raises(InvalidConfigError, match="meaning of its own"):
        node.datapath.create(values.wiring(20, ifname=name), pod.descriptor)
    assert (pod.dump(), node.dump()) == before
