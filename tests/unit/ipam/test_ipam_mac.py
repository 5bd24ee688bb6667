from ipaddress import IPv4Address, IPv6Address, ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_underlay.ipam.mac import mac_for, mac_of
from cni_underlay.records import Attachment, Claim, DatapathKind, LeasedAddress


def leased(*texts: str) -> list[LeasedAddress]:
    return [
        LeasedAddress(pool="p", slot=slot, interface=ip_interface(text), gateway=None)
        for slot, text in enumerate(texts)
    ]


def claim(datapath: DatapathKind, mac: str = "") -> Claim:
    attachment = Attachment(network="n", container_id="c", ifname="eth0")
    return Claim(attachment=attachment, datapath=datapath, mac=mac)


def test_the_mac_of_an_ipv4_address_spells_the_address() -> None:
    assert mac_for(IPv4Address("10.1.2.255")) == "02:75:0a:01:02:ff"


def test_neighbours_in_one_ipv6_prefix_differ_in_the_last_bytes_only() -> None:
    one, other = mac_for(IPv6Address("fd00:7::1")), mac_for(IPv6Address("fd00:7::2"))
    assert one != other
    assert one[:-2] == other[:-2]


def test_the_same_host_part_in_two_ipv6_subnets_has_two_macs() -> None:
    assert mac_for(IPv6Address("fd00:7::5")) != mac_for(IPv6Address("fd00:8::5"))


@given(st.ip_addresses())
def test_every_mac_is_local_and_unicast_and_always_the_same(address: IPv4Address | IPv6Address) -> None:
    mac = mac_for(address)
    assert int(mac[:2], 16) & 0b11 == 0b10
    assert mac_for(address) == mac
    assert len(bytes.fromhex(mac.replace(":", ""))) == 6


@given(st.ip_addresses(v=4), st.ip_addresses(v=6))
def test_no_ipv6_address_shares_the_mac_of_an_ipv4_one(four: IPv4Address, six: IPv6Address) -> None:
    assert mac_for(four) != mac_for(six)


def test_the_first_ipv4_address_decides_in_a_dual_stack_pod() -> None:
    found = mac_of(claim(DatapathKind.MACVLAN), leased("fd00:7::9/64", "10.7.0.9/24"))
    assert found == "02:75:0a:07:00:09"


def test_a_requested_mac_wins() -> None:
    assert mac_of(claim(DatapathKind.VETH, "c2:11:22:33:44:55"), leased("10.7.0.9/24")) == "c2:11:22:33:44:55"


@pytest.mark.parametrize("datapath", [DatapathKind.IPVLAN, DatapathKind.NONE])
def test_no_mac_is_made_up_where_the_interface_has_another(datapath: DatapathKind) -> None:
    assert mac_of(claim(datapath), leased("10.7.0.9/24")) == ""


def test_an_attachment_without_addresses_has_no_mac_yet() -> None:
    assert mac_of(claim(DatapathKind.VETH), []) == ""
