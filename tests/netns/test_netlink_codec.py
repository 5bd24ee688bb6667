"""The rtnetlink codec against the kernel: batches, refusals and their words, dumps, and readers that give up."""

import errno
import struct
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from cni_underlay.datapath import facts, links, messages, netlink
from cni_underlay.datapath.netlink import Message, RefusedError, RequestSocket
from cni_underlay.datapath.netns import requests_in
from cni_underlay.datapath.refusal import kernel
from cni_underlay.errors import DatapathError
from cni_underlay.records import Route

from .segment import Machine, Segment


@pytest.fixture
def machine(segment: Segment) -> Machine:
    return segment.pod()


@pytest.fixture
def requests(machine: Machine) -> Iterator[RequestSocket]:
    with requests_in(machine.descriptor) as requests:
        yield requests


def pair(index: int, name: str, peer: str) -> Message:
    return messages.new_link(index, name, messages.kind("veth", messages.veth_peer(index + 1, peer)))


@pytest.mark.parametrize("length", range(9))
def test_attributes_of_every_length_come_back(length: int) -> None:
    value = bytes(range(length))
    packed = netlink.attribute(7, value) + netlink.number32(9, 5)
    assert len(packed) % 4 == 0
    assert netlink.attributes(packed) == {7: value, 9: struct.pack("=I", 5)}


@pytest.mark.parametrize("damaged", [b"", b"\1", b"\0\0\0\0", b"\3\0\1\0", b"\xff\xff\1\0ab"])
def test_damaged_attributes_end_the_reading(damaged: bytes) -> None:
    good = netlink.number32(9, 5)
    assert netlink.attributes(good + damaged)[9] == struct.pack("=I", 5)


def test_the_flags_of_an_attributes_type_are_no_part_of_it() -> None:
    assert netlink.attributes(netlink.attribute(0x8000 | 26, b"abcd")) == {26: b"abcd"}


def test_a_batch_goes_on_past_a_failure_and_says_which_failed_and_why(
    machine: Machine, requests: RequestSocket
) -> None:
    requests.change(pair(9000, "left", "right"), messages.link_up(9000, "mark"), messages.link_up(9001, ""))
    refusals = requests.attempt(
        [
            messages.new_address(9000, ip_interface("10.1.0.1/24")),
            messages.new_address(9000, ip_interface("10.1.0.1/24")),
            messages.new_route(9000, Route(dst=ip_network("10.2.0.0/16"), gw=ip_address("10.99.0.1"))),
            messages.new_route(9000, Route(dst=ip_network("10.3.0.0/16"), gw=ip_address("10.1.0.9"))),
            messages.delete_link(4242),
        ]
    )
    assert [(refusal.position, refusal.errno) for refusal in refusals] == [
        (1, errno.EEXIST),
        (2, errno.ENETUNREACH),
        (4, errno.ENODEV),
    ]
    assert refusals[1].words == "Nexthop has invalid gateway"
    assert "10.3.0.0/16 via 10.1.0.9" in machine.ip("route")


def test_change_raises_the_first_refusal(requests: RequestSocket) -> None:
    with pytest.raises(RefusedError) as caught:
        requests.change(messages.link_up(1, ""), messages.delete_link(4242), messages.delete_link(4243))
    assert (caught.value.position, caught.value.errno) == (1, errno.ENODEV)


def test_a_refusal_becomes_an_error_with_step_errno_and_the_kernels_words(requests: RequestSocket) -> None:
    route = Route(dst=ip_network("10.2.0.0/16"), gw=ip_address("10.99.0.1"))
    with pytest.raises(DatapathError, match="the kernel refused to add a route") as caught, kernel("add a route"):
        requests.change(messages.new_route(1, route))
    assert caught.value.details.startswith("add a route: ENETUNREACH (Nexthop has invalid gateway")
    assert isinstance(caught.value.__cause__, RefusedError)


def test_more_messages_than_fit_one_sending_are_all_tried(machine: Machine, requests: RequestSocket) -> None:
    ips = [ip_address(f"10.1.{number >> 8}.{number & 255}") for number in range(1500)]
    requests.change(pair(9000, "left", "right"))
    assert requests.attempt([messages.new_proxy(9000, ip) for ip in ips]) == []
    assert {proxy.ip for proxy in facts.proxies(requests)} == set(ips)
    gone = requests.attempt([messages.delete_proxy(9000, ip) for ip in [*ips, ips[0]]])
    assert [(refusal.position, refusal.errno) for refusal in gone] == [(1500, errno.ENOENT)]


def test_a_dump_of_many_links_is_read_whole(machine: Machine, requests: RequestSocket) -> None:
    for number in range(60):
        requests.change(pair(9000 + 2 * number, f"l{number}", f"r{number}"))
        requests.change(messages.link_up(9000 + 2 * number, f"cni-underlay:{number:040}"))
    found = facts.links_marked(requests, "cni-underlay:")
    assert {link.name for link in found} == {f"l{number}" for number in range(60)}
    assert all(link.kind == "veth" and link.parent == link.index + 1 for link in found)


def test_a_dump_left_half_read_does_not_confuse_what_follows(machine: Machine, requests: RequestSocket) -> None:
    for number in range(60):
        requests.change(pair(9000 + 2 * number, f"l{number}", f"r{number}"))
    reading = requests.dump(messages.all_links())
    next(reading)
    link = facts.link_named(requests, "l7")
    assert link is not None
    assert link.index == 9014
    requests.change(messages.link_up(9014, "after"))
    assert [found.name for found in facts.links_marked(requests, "after")] == ["l7"]


def test_an_index_that_is_taken_is_not_the_end(
    machine: Machine, requests: RequestSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests.change(pair(9000, "left", "right"))
    indexes = links.Indexes()
    offered = iter([9000, 9001, 9100])
    monkeypatch.setattr(indexes, "pair", lambda: next(offered))
    assert links.make(requests, indexes, lambda index: pair(index, "new", "newer")) == 9100
    assert "new@newer" in machine.ip("link")


def test_indexes_come_in_pairs_and_none_comes_twice_soon() -> None:
    indexes = links.Indexes()
    drawn = [indexes.pair() for _ in range(28_672)]
    assert len(set(drawn)) == 28_672
    assert all(index % 2 == 0 and 8192 <= index < 65_535 for index in drawn)


def test_only_the_routes_asked_for_are_dumped(machine: Machine, requests: RequestSocket) -> None:
    requests.change(pair(9000, "left", "right"), messages.link_up(9000, ""), messages.link_up(9001, ""))
    machine.ip("route", "add", "10.7.0.0/16", "dev", "left")
    machine.ip("route", "add", "10.8.0.0/16", "dev", "right", "proto", "85")
    machine.ip("-6", "route", "add", "2001:db8:8::/48", "dev", "right", "proto", "85", "table", "8500")
    ours = list(facts.routes(requests, protocol=85))
    assert [(str(route.dst), route.index, route.table) for route in ours] == [
        ("10.8.0.0/16", 9001, 254),
        ("2001:db8:8::/48", 9001, 8500),
    ]
    assert "10.7.0.0/16" in [str(route.dst) for route in facts.routes(requests, index=9000)]


def test_seeing_a_link_off_returns_when_it_is_gone(machine: Machine, requests: RequestSocket) -> None:
    requests.change(pair(9000, "left", "right"))
    with requests_in(machine.descriptor) as other:
        links.see_off(other, 9000)
    assert facts.link_named(requests, "left") is None
    with requests_in(machine.descriptor) as other:
        links.see_off(other, 9000)
