"""ADD: an address, durable, then an interface, complete; or an error, and nothing."""

import os
from contextlib import ExitStack

from cni_underlay.cni.environment import Call
from cni_underlay.cni.netconf import DelegateConf, IpamConf, NetConf, effective_dns, requested_ips, requested_mac
from cni_underlay.cni.result import Interface, Ip, Result, encode, merge
from cni_underlay.datapath.netns import inode, require_foreign
from cni_underlay.datapath.port import Wired, Wiring
from cni_underlay.errors import AttachmentExistsError, InvalidConfigError, InvalidNamespaceError
from cni_underlay.plugin import delegate
from cni_underlay.plugin.pools import resolve
from cni_underlay.plugin.services import Request, Services, retire_master
from cni_underlay.records import Claim, DatapathKind, Dns, Lease, LeasedAddress, Route

HOST_LINK_PREFIX = "und"  # + 11 hexadecimal digits of the attachment's digest: 14 of IFNAMSIZ's 15


def add(services: Services, request: Request) -> bytes:
    """Attach the container and return the result in the configuration's version."""
    conf, attachment = request.conf, request.attachment
    _refuse_unsupported(conf)
    netns = require_netns(request)
    netns_inode = inode(netns)
    with services.locks.hold(attachment):
        known = services.store.find(attachment)
        if known is not None:
            repeated = _repeat(services, request, known, netns, netns_inode)
            if repeated is not None:
                return repeated
        return _attach(services, request, _claim(services, request, netns_inode), netns)


def add_addresses(services: Services, request: Request) -> bytes:
    """ADD as a delegated IPAM plugin: addresses only, and no namespace needs to exist."""
    conf = request.conf
    ipam = own_ipam(conf)
    claim = Claim(attachment=request.attachment, pod=request.call.args.pod, netns_path=request.call.netns)
    with services.locks.hold(request.attachment), ExitStack() as undo:
        with request.steps.step("lease"):
            lease = services.store.acquire(
                claim, resolve(conf, ipam, services.settings), requested_ips(conf, request.call), services.clock()
            )
        undo.callback(services.store.withdraw, lease.generation, services.clock())
        ips = tuple(Ip(address=a.interface, gateway=a.gateway, interface=None) for a in lease.addresses)
        own = Result(interfaces=(), ips=ips, routes=lease.routes, dns=effective_dns(conf, lease.dns))
        answer = encode(own, conf.cni_version)
        services.store.confirm(lease.generation)
        undo.pop_all()
        return answer


def own_ipam(conf: NetConf) -> IpamConf:
    """The configuration's `ipam` block where it is ours to serve."""
    if not isinstance(conf.ipam, IpamConf):
        raise InvalidConfigError("ipam: an `ipam` block of type underlay-ipam is needed here")
    return conf.ipam


def require_netns(request: Request) -> int:
    """The container's namespace; raises `InvalidNamespaceError` when it cannot be one we may work in."""
    path = request.call.netns
    if request.netns is None:
        reason = os.strerror(request.netns_errno) if request.netns_errno else "no descriptor came with the request"
        raise InvalidNamespaceError(f"CNI_NETNS {path!r} cannot be opened", reason)
    require_foreign(request.netns, path, overridden=_overridden(request.call))
    return request.netns


def _overridden(call: Call) -> bool:
    """libcni's way to allow the plugin's own namespace (skel, CNI_NETNS_OVERRIDE)."""
    return call.environment.get("CNI_NETNS_OVERRIDE", "").lower() in ("true", "1")


def _refuse_unsupported(conf: NetConf) -> None:
    """What a pod asks for is done or refused, never ignored (specification, section 3 and CONVENTIONS)."""
    for capability in conf.runtime.unsupported:
        raise InvalidConfigError(
            f"runtimeConfig.{capability}: plugin {conf.type!r} does not offer this capability itself; "
            f"chain the reference plugin that does (portmap, bandwidth) and declare the capability there"
        )
    if conf.ipam is None and conf.datapath is not DatapathKind.MACVLAN:
        raise InvalidConfigError(f"ipam: datapath {conf.datapath} routes addresses and needs an `ipam` block")


def _claim(services: Services, request: Request, netns_inode: int) -> Claim:
    conf, attachment = request.conf, request.attachment
    with request.steps.step("master"):
        master = conf.master or services.datapath.default_master()
        services.datapath.require_master(master)
    return Claim(
        attachment=attachment,
        pod=request.call.args.pod,
        datapath=conf.datapath,
        mode=conf.mode,
        master=master,
        mtu=conf.mtu,
        mac=requested_mac(conf, request.call),
        host_ifname=HOST_LINK_PREFIX + attachment.digest[:11] if conf.datapath is DatapathKind.VETH else "",
        netns_path=request.call.netns,
        netns_inode=netns_inode,
    )


def _attach(services: Services, request: Request, claim: Claim, netns: int) -> bytes:
    conf = request.conf
    delegated: Result | None = None
    with ExitStack() as undo:
        pools = resolve(conf, conf.ipam, services.settings) if isinstance(conf.ipam, IpamConf) else ()
        with request.steps.step("lease"):
            lease = services.store.acquire(claim, pools, requested_ips(conf, request.call), services.clock())
        withdraw = undo.enter_context(ExitStack())
        withdraw.callback(services.store.withdraw, lease.generation, services.clock())
        if isinstance(conf.ipam, DelegateConf):
            with request.steps.step("delegate"):
                delegated = delegate.add(request, conf.ipam)
            undo.callback(delegate.undo_add, request, conf.ipam)
            addresses = delegated_addresses(conf, conf.ipam, delegated)
            lease = services.store.record(lease.generation, addresses, services.clock())
        wiring = wiring_of(lease, delegated.routes if delegated else lease.routes)
        with request.steps.step("wire"):
            wired = services.datapath.create(wiring, netns)
        # From here on the address was on the wire: whatever fails now, it rests before its next owner.
        withdraw.pop_all()
        undo.callback(_detach, services, lease, netns)
        answer = answer_of(request, wired, delegated.dns if delegated else lease.dns)
        services.store.confirm(lease.generation)
        undo.pop_all()
        return answer


def _detach(services: Services, lease: Lease, netns: int | None) -> None:
    services.datapath.delete(lease, netns)
    services.store.release([lease.generation], "ADD failed", services.clock())
    retire_master(services, lease)


def _repeat(services: Services, request: Request, known: Lease, netns: int, netns_inode: int) -> bytes | None:
    """The first ADD's answer for a repeated one; None when what the first left behind was cleared away.

    A repeated ADD comes from a runtime that never saw the answer (the agent or the client was killed). It gets the same
    address. One that finds the first attachment alive and different is refused, and the first goes on working.
    """
    same_place = known.claim.netns_inode == netns_inode and known.leased_at.boot_id == services.clock().boot_id
    wired = services.datapath.wired(wiring_of(known, known.routes), netns) if same_place else None
    if wired is not None and not isinstance(request.conf.ipam, DelegateConf):
        services.store.confirm(known.generation)
        return answer_of(request, wired, known.dns)
    if known.attached and (same_place or _alive(known)):
        raise AttachmentExistsError(
            f"{known.claim.attachment.ifname} of container {known.claim.attachment.container_id} is attached already "
            f"with {', '.join(str(a.interface.ip) for a in known.addresses)}; DEL it first"
        )
    _detach(services, known, netns if same_place else None)
    return None


def _alive(lease: Lease) -> bool:
    """Whether the namespace of the lease still stands at its path."""
    try:
        return os.stat(lease.claim.netns_path).st_ino == lease.claim.netns_inode  # noqa: PTH116  # follows as setns does
    except OSError:
        return False


def wiring_of(lease: Lease, routes: tuple[Route, ...]) -> Wiring:
    """The interface that a lease stands for."""
    claim = lease.claim
    return Wiring(
        attachment=claim.attachment,
        pod=claim.pod,
        kind=claim.datapath,
        mode=claim.mode,
        master=claim.master,
        mtu=claim.mtu,
        mac=claim.mac,
        host_ifname=claim.host_ifname,
        addresses=lease.addresses,
        routes=routes,
    )


def delegated_addresses(conf: NetConf, ipam: DelegateConf, result: Result) -> tuple[LeasedAddress, ...]:
    """A delegate's addresses as rows of our ledger: their own name space, because their own manager keeps them unique."""
    pool = f"delegate/{ipam.type}/{conf.name}"
    return tuple(
        LeasedAddress(pool=pool, slot=slot, interface=ip.address, gateway=ip.gateway)
        for slot, ip in enumerate(result.ips)
    )


def answer_of(request: Request, wired: Wired, ipam_dns: Dns) -> bytes:
    """The encoded result: a chained plugin's prevResult kept, ours appended (specification, section 5)."""
    conf = request.conf
    interfaces = tuple(
        Interface(name=link.name, mac=link.mac, mtu=link.mtu, sandbox=request.call.netns if link.sandboxed else "")
        for link in wired.links
    )
    ips = tuple(
        Ip(address=endpoint.interface, gateway=endpoint.gateway, interface=len(interfaces) - 1)
        for endpoint in wired.addresses
    )
    own = Result(interfaces=interfaces, ips=ips, routes=wired.routes, dns=effective_dns(conf, ipam_dns))
    return encode(merge(conf.prev_result, own) if conf.prev_result else own, conf.cni_version)
