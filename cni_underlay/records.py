"""The nouns of the project: immutable records that every layer shares, without files, sockets or kernels."""

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network
IPInterface = IPv4Interface | IPv6Interface


class DatapathKind(StrEnum):
    """How a pod's interface is made. `none`: another main plugin makes it and only asked for addresses."""

    VETH = "veth"
    MACVLAN = "macvlan"
    IPVLAN = "ipvlan"
    NONE = "none"


class AddressState(StrEnum):
    """Where an address stands in its life; an address without a record is free."""

    LEASED = "leased"
    QUARANTINED = "quarantined"
    RESERVED = "reserved"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """One interface of one container in one network: the key of everything (never the pod's name).

    The fields are compared whole, so that `a-b` + `c` and `a` + `b-c` stay different.
    """

    network: str
    container_id: str
    ifname: str

    @property
    def digest(self) -> str:
        """40 hexadecimal digits that stand for the three fields where the kernel has little room for names."""
        text = f"{self.network}\0{self.container_id}\0{self.ifname}"
        return hashlib.sha1(text.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """Who the container belongs to, as far as the runtime said (`K8S_POD_*` in CNI_ARGS); empty where it did not."""

    namespace: str = ""
    name: str = ""
    uid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A route inside the pod; `None` leaves the kernel's own default, `gw` None means the address's gateway."""

    dst: IPNetwork
    gw: IPAddress | None = None
    mtu: int | None = None
    advmss: int | None = None
    priority: int | None = None
    table: int | None = None
    scope: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dns:
    """The `dns` object of a configuration or result (CNI specification, section 5)."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRange:
    """Addresses `first` to `last`, both included, of one subnet; network, broadcast and gateway are never given."""

    subnet: IPNetwork
    first: IPAddress
    last: IPAddress
    gateway: IPAddress | None
    excludes: tuple[tuple[IPAddress, IPAddress], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Where addresses come from: each set of ranges gives an attachment one address (dual stack: two sets).

    `quarantine` and `floor` are seconds: how long a freed address rests, and at least when nothing else is left.
    """

    name: str
    sets: tuple[tuple[AddressRange, ...], ...]
    routes: tuple[Route, ...] = ()
    dns: Dns = field(default_factory=Dns)
    quarantine: float = 120.0
    floor: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedAddress:
    """One address of a lease, with the subnet's prefix length; `slot` is the index of the pool's set that gave it."""

    pool: str
    slot: int
    interface: IPInterface
    gateway: IPAddress | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Instant:
    """A moment: `wall` in seconds since the epoch, for people; `uptime` in seconds of CLOCK_BOOTTIME, for measuring.

    Only `uptime` decides anything, because nobody can set it; it counts from the boot named by `boot_id`.
    """

    wall: float
    uptime: float
    boot_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Everything an ADD knows of an attachment before it has an address."""

    attachment: Attachment
    pod: Pod = field(default_factory=Pod)
    datapath: DatapathKind = DatapathKind.NONE
    mode: str = ""
    master: str = ""
    mtu: int = 0
    mac: str = ""
    host_ifname: str = ""
    netns_path: str = ""
    netns_inode: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A claim with its addresses, as the ledger holds it.

    `generation` grows with every lease of this ledger: a DEL or GC that speaks of an older one never frees a newer.
    `attached` is false from the durable commit until the interface is known to be complete. An empty `claim.mac`
    means that the MAC follows from the first address.
    """

    generation: int
    claim: Claim
    addresses: tuple[LeasedAddress, ...]
    routes: tuple[Route, ...]
    dns: Dns
    leased_at: Instant
    attached: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One row of history: what happened to an address, when, and whose it was."""

    at: float
    what: str
    pool: str
    address: IPAddress
    generation: int
    attachment: Attachment | None = None
    pod: Pod = field(default_factory=Pod)
    mac: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolUsage:
    """Counts of addresses of one pool in this ledger, by state."""

    pool: str
    leased: int
    quarantined: int
    reserved: int
    foreign: int
