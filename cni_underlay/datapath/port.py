"""What the use cases ask of a datapath, and what it answers: plain values, so that `plugin` never sees netlink."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cni_underlay.records import Attachment, DatapathKind, IPAddress, IPInterface, Lease, LeasedAddress, Pod, Route


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """What an interface should become. `mtu` 0 takes the master's; `addresses` carry the subnet's prefix length."""

    attachment: Attachment
    pod: Pod
    kind: DatapathKind
    mode: str
    master: str
    mtu: int
    mac: str
    host_ifname: str
    addresses: tuple[LeasedAddress, ...]
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An address as the kernel has it in the pod, with the gateway that serves it (veth: /32, the link-local hop)."""

    interface: IPInterface
    gateway: IPAddress | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One interface of a result. `sandboxed` tells the pod's end from the host's."""

    name: str
    mac: str
    mtu: int
    sandboxed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Wired:
    """What the kernel has now: links (host's first, the pod's last), addresses and routes in the wiring's order."""

    links: tuple[Link, ...]
    addresses: tuple[Endpoint, ...]
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a CHECK's prevResult says of the pod's interface; `mac` empty or `mtu` 0 where it says nothing.

    A route without `gw` matches through `gateways`, the gateways of its family in prevResult's `ips`.
    """

    mac: str
    mtu: int
    addresses: tuple[IPInterface, ...]
    gateways: tuple[IPAddress, ...]
    routes: tuple[Route, ...]


class Datapath(Protocol):
    """Makes, reads and removes interfaces. Namespaces come as open descriptors that the caller keeps and closes."""

    def default_master(self) -> str:
        """The interface of the node's default route (IPv4, else IPv6); raises `InvalidConfigError` without one."""

    def master_exists(self, master: str) -> bool:
        """Whether the node has an interface of that name."""

    def require_master(self, master: str) -> None:
        """Raise `DatapathError` naming the master when it is missing, down, or cannot carry pods."""

    def create(self, wiring: Wiring, netns: int) -> Wired:
        """Make the interface complete, or raise (`DatapathError`, `InvalidConfigError`) with everything undone.

        An interface of that name that exists already is an error and stays untouched.
        """

    def complete(self, wiring: Wiring, netns: int) -> Wired:
        """Give a macvlan or ipvlan interface that `create` made without addresses what it lacks; else as `create`.

        A failure leaves the interface itself to `delete`.
        """

    def wired(self, wiring: Wiring, netns: int) -> Wired | None:
        """What the kernel has, when the attachment is complete; None when any part of it is missing or different."""

    def check(self, wiring: Wiring, netns: int, expected: Expected) -> None:
        """Raise `CheckFailedError` that says what differs, reading the kernel only."""

    def delete(self, lease: Lease, netns: int | None) -> None:
        """Remove all that `create` made, on both sides, also when parts are gone already or `netns` is None.

        Only what carries this attachment's mark is removed, never an interface that merely has the name. The shared
        host-side link of the master stays: see `retire`.
        """

    def retire(self, master: str, unused: Callable[[], bool]) -> None:
        """Remove the master's host-side link if `unused()` says so under the lock that `create` makes it under."""

    def delete_unknown(self, attachment: Attachment, netns: int | None) -> None:
        """As `delete`, for an attachment the ledger does not know: by the marks on the links alone."""

    def sweep(self, leases: tuple[Lease, ...]) -> tuple[str, ...]:
        """Remove our links, routes and proxy neighbours of no lease from the node; returns which, in words."""
