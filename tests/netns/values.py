"""What tests ask a datapath for: wirings, leases and expectations from a number."""

from ipaddress import ip_address, ip_interface
from typing import Any

from cni_underlay.datapath.port import Expected, Wired, Wiring
from cni_underlay.records import Attachment, Claim, DatapathKind, Dns, Instant, Lease, LeasedAddress, Pod


def wiring(number: int, **changes: Any) -> Wiring:  # any field of a wiring
    """A veth interface with 10.9.0.`number` and 2001:db8:9::`number`; `versions`, `ifname`, any field may differ."""
    versions = changes.pop("versions", (4, 6))
    attachment = Attachment(network="underlay", container_id=f"c{number}", ifname=changes.pop("ifname", "eth0"))
    subnets = {4: (f"10.9.0.{number}/24", "10.9.0.1"), 6: (f"2001:db8:9::{number:x}/64", "2001:db8:9::1")}
    addresses = tuple(
        LeasedAddress(pool="app", slot=slot, interface=ip_interface(subnets[v][0]), gateway=ip_address(subnets[v][1]))
        for slot, v in enumerate(versions)
    )
    values = {
        "attachment": attachment,
        "pod": Pod(),
        "kind": DatapathKind.VETH,
        "mode": "",
        "master": "eth0",
        "mtu": 0,
        "mac": "",
        "addresses": addresses,
        "routes": (),
    } | changes
    values.setdefault("host_ifname", f"und{attachment.digest[:11]}" if values["kind"] == DatapathKind.VETH else "")
    return Wiring(**values)


def lease(of: Wiring) -> Lease:
    """The ledger's row for a wiring."""
    return Lease(
        generation=1,
        claim=Claim(
            attachment=of.attachment,
            datapath=of.kind,
            mode=of.mode,
            master=of.master,
            mtu=of.mtu,
            mac=of.mac,
            host_ifname=of.host_ifname,
        ),
        addresses=of.addresses,
        routes=of.routes,
        dns=Dns(),
        leased_at=Instant(wall=0.0, uptime=0.0, boot_id=""),
    )


def expected(wired: Wired) -> Expected:
    """What a runtime would hand to CHECK after this answer."""
    return Expected(
        mac=wired.links[-1].mac,
        mtu=wired.links[-1].mtu,
        addresses=tuple(endpoint.interface for endpoint in wired.addresses),
        gateways=tuple(endpoint.gateway for endpoint in wired.addresses if endpoint.gateway is not None),
        routes=wired.routes,
    )
