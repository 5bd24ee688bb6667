"""What our own netlink code wrote and reads, as an independent reader sees it: pyroute2, on the same kernel."""

from ipaddress import ip_interface

import pytest
from pyroute2 import IPRoute

from cni_underlay.datapath import facts
from cni_underlay.datapath.netns import requests_in
from cni_underlay.records import DatapathKind

from . import values
from .segment import Node, Segment


@pytest.mark.parametrize("kind", [DatapathKind.VETH, DatapathKind.MACVLAN])
def test_pyroute2_reads_the_interface_that_we_wrote(segment: Segment, node: Node, kind: DatapathKind) -> None:
    pod = segment.pod()
    wired = node.datapath.create(values.wiring(20, kind=kind), pod.descriptor)
    with IPRoute(netns=pod.path) as reader:
        (link,) = reader.link("get", ifname="eth0")
        addresses = {
            ip_interface(f"{entry.get('address')}/{entry['prefixlen']}")
            for entry in reader.get_addr(index=link["index"])
            if not entry.get("address").startswith("fe80")
        }
        defaults = {str(route.get("gateway")) for route in reader.get_default_routes()}
    assert link.get("address") == wired.links[-1].mac
    assert link.get("mtu") == wired.links[-1].mtu
    assert link.get(("linkinfo", "kind")) == kind
    assert addresses == {endpoint.interface for endpoint in wired.addresses}
    assert defaults == {str(route.gw) for route in wired.routes if route.dst.prefixlen == 0}


def test_we_and_pyroute2_read_the_same_of_a_link(segment: Segment, node: Node) -> None:
    pod = segment.pod()
    node.datapath.create(values.wiring(20), pod.descriptor)
    with IPRoute(netns=pod.path) as reader:
        theirs = {
            (link["index"], link.get("ifname"), link.get("address"), link.get("mtu")) for link in reader.link("dump")
        }
    with requests_in(pod.descriptor) as requests:
        found = [facts.link_named(requests, name) for name in ("lo", "eth0")]
    ours = {(link.index, link.name, ":".join(f"{byte:02x}" for byte in link.mac), link.mtu) for link in found if link}
    assert ours == theirs
