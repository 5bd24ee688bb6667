"""ADD: an address, durable, then an interface, complete; or an error, and nothing."""

from contextlib import ExitStack

from cni_underlay.cni.netconf import DelegateConf, IpamConf, NetConf
from cni_underlay.cni.precedence import effective_dns, requested_ips, requested_mac
from cni_underlay.cni.result import Interface, Ip, Result, encode, merge
from cni_underlay.datapath.netns import inode
from cni_underlay.datapath.port import Wired, Wiring
from cni_underlay.errors import AttachmentExistsError, InvalidConfigError
from cni_underlay.plugin import delegate
from cni_underlay.plugin.namespaces import lease_netns, require_netns, stands
from cni_underlay.plugin.pools import resolve
from cni_underlay.plugin.services import Request, Services, retire_master
from cni_underlay.records import Attachment, Claim, DatapathKind, Lease, LeasedAddress

HOST_LINK_PREFIX = "und"  # + 11 hexadecimal digits of the attachment's digest: 14 of IFNAMSIZ's 15


def add(services: Services, request: Request) -> bytes:
    """Attach the container and return the result in the configuration's version."""
    _refuse_unsupported(request)
    netns = require_netns(request)
    claim = _claim(services, request, inode(netns))
    with services.exclusive(request.attachment):
        request.require_caller()
        try:
            return _attach(services, request, claim, netns)
        except AttachmentExistsError:
            # Asking the ledger first would cost every ADD what only a repeated one needs.
            known = services.store.find(request.attachment)
            if known is None:
                raise
        return _repeat(services, request, known, claim, netns) or _attach(services, request, claim, netns)


def add_addresses(services: Services, request: Request) -> bytes:
    """ADD as a delegated IPAM plugin: addresses only, and no namespace needs to exist."""
    conf = request.conf
    pools = resolve(conf, own_ipam(conf), services.settings)
    wanted = requested_ips(conf, request.call)
    claim = Claim(attachment=request.attachment, pod=request.call.args.pod, netns_path=request.call.netns)
    with services.exclusive(request.attachment), ExitStack() as undo:
        request.require_caller()
        known = services.store.find(request.attachment)
        if known is not None:
            if known.attached:
                raise _exists(known)
            request.note(known)
            return _answer_addresses(request, known)  # the first answer got lost with the agent that gave it
        with request.steps.step("lease"):
            lease = services.store.acquire(claim, pools, wanted, services.clock())
        undo.callback(services.store.withdraw, lease.generation, services.clock())
        request.note(lease)
        answer = _answer_addresses(request, lease)
        with request.steps.step("flush"):
            services.store.settle(lease.generation)
        services.store.confirm(lease.generation)
        services.owed[request.attachment] = request
        undo.pop_all()
        return answer


def take_back(services: Services, request: Request) -> bool:
    """Undo an ADD whose answer reached nobody; false where somebody else has been given its attachment since."""
    with services.exclusive(request.attachment):
        if services.owed.get(request.attachment) is not request:
            return False
        del services.owed[request.attachment]
        lease = services.store.find(request.attachment)
        if lease is not None:
            _detach(services, lease, request.netns, "ADD was not answered")
        if isinstance(request.conf.ipam, DelegateConf):
            delegate.undo_add(services, request, request.conf.ipam)
        return True


def own_ipam(conf: NetConf) -> IpamConf:
    """The configuration's `ipam` block where it is ours to serve."""
    if not isinstance(conf.ipam, IpamConf):
        raise InvalidConfigError("ipam: an `ipam` block of type underlay-ipam is needed here")
    return conf.ipam


def _refuse_unsupported(request: Request) -> None:
    """What a pod asks for is done or refused, never ignored (specification, section 3 and CONVENTIONS)."""
    conf = request.conf
    for capability in conf.runtime.unsupported:
        raise InvalidConfigError(
            f"runtimeConfig.{capability}: plugin {conf.type!r} does not offer this capability itself; "
            f"chain the reference plugin that does (portmap, bandwidth) and declare the capability there"
        )
    if conf.ipam is None:
        if conf.datapath is not DatapathKind.MACVLAN:
            raise InvalidConfigError(f"ipam: datapath {conf.datapath} routes addresses and needs an `ipam` block")
        if requested_ips(conf, request.call):
            raise InvalidConfigError("ipam: an address is asked for, and there is no `ipam` block to give it")


def _claim(services: Services, request: Request, netns_inode: int) -> Claim:
    conf, attachment = request.conf, request.attachment
    return Claim(
        attachment=attachment,
        pod=request.call.args.pod,
        datapath=conf.datapath,
        mode=conf.mode,
        master=conf.master or services.datapath.default_master(),
        mtu=conf.mtu,
        mac=requested_mac(conf, request.call) or _mac_before_addresses(conf, attachment),
        host_ifname=HOST_LINK_PREFIX + attachment.digest[:11] if conf.datapath is DatapathKind.VETH else "",
        netns_path=request.call.netns,
        netns_inode=netns_inode,
    )


def _mac_before_addresses(conf: NetConf, attachment: Attachment) -> str:
    """Where the interface comes before its addresses, the MAC cannot follow from them; '' everywhere else."""
    if conf.datapath is not DatapathKind.MACVLAN or isinstance(conf.ipam, IpamConf):
        return ""
    digest = attachment.digest
    return ":".join(["0a", "75", *(digest[place : place + 2] for place in range(0, 8, 2))])  # locally administered


def _attach(services: Services, request: Request, claim: Claim, netns: int) -> bytes:
    conf = request.conf
    with ExitStack() as undo:
        lease = _lease(services, request, claim)
        withdraw = undo.enter_context(ExitStack())
        withdraw.callback(retire_master, services, lease)
        withdraw.callback(services.store.withdraw, lease.generation, services.clock())
        wire = services.datapath.create
        if isinstance(conf.ipam, DelegateConf):
            if claim.datapath is not DatapathKind.VETH:
                # A DHCP client asks through the interface. A veth has no segment to ask, and needs its routes at once.
                wire(wiring_of(lease), netns)
                wire = services.datapath.complete
                undo.callback(services.datapath.delete, lease, netns)
            lease = _delegated(services, request, conf.ipam, lease, undo)
        request.note(lease)
        _answer_addresses(request, lease)  # an old version that cannot say this is refused before anything is made
        with request.steps.step("wire"):
            wired = wire(wiring_of(lease), netns)
        # From here on the address was on the wire: whatever fails now, it rests before its next owner.
        withdraw.pop_all()
        undo.callback(_detach, services, lease, netns, "ADD failed")
        answer = answer_of(request, lease, wired)
        with request.steps.step("flush"):  # it began with the lease, and is over by now as a rule
            services.store.settle(lease.generation)
        services.store.confirm(lease.generation)
        services.owed[request.attachment] = request
        undo.pop_all()
        return answer


def _delegated(services: Services, request: Request, ipam: DelegateConf, lease: Lease, undo: ExitStack) -> Lease:
    """The lease with what the delegate gave."""
    with request.steps.step("delegate"):
        given = delegate.add(services, request, ipam)
    undo.callback(delegate.undo_add, services, request, ipam)
    addresses = delegated_addresses(request.conf, ipam, given)
    return services.store.record(lease.generation, addresses, given.routes, given.dns, services.clock())


def _lease(services: Services, request: Request, claim: Claim) -> Lease:
    conf = request.conf
    own = isinstance(conf.ipam, IpamConf)
    pools = resolve(conf, own_ipam(conf), services.settings) if own else ()
    wanted = requested_ips(conf, request.call) if own else ()  # a delegate reads them itself
    with request.steps.step("lease"):
        return services.store.acquire(claim, pools, wanted, services.clock())


def _detach(services: Services, lease: Lease, offered: int | None, reason: str) -> None:
    with lease_netns(lease, offered) as netns:
        services.datapath.delete(lease, netns)
    services.store.release([lease.generation], reason, services.clock())
    retire_master(services, lease)


def _repeat(services: Services, request: Request, known: Lease, claim: Claim, netns: int) -> bytes | None:
    """The first ADD's answer for a repeated one; None when what the first left behind was cleared away.

    A repeated ADD comes from a runtime that never saw the answer (the agent or the client was killed). It gets the same
    address. One that finds the first attachment alive and different is refused, and the first goes on working.
    """
    # The agent was killed while the delegate was at work: what stands without addresses is no attachment yet.
    unfinished = isinstance(request.conf.ipam, DelegateConf) and not known.addresses
    same_boot = known.leased_at.boot_id == services.clock().boot_id
    same_place = same_boot and known.claim.netns_inode == claim.netns_inode
    wired = services.datapath.wired(wiring_of(known), netns) if same_place and not unfinished else None
    if wired is not None:
        services.store.confirm(known.generation)
        if request.attachment in services.owed:
            services.owed[request.attachment] = request
        request.note(known)
        return answer_of(request, known, wired)
    # Who has an interface of another plugin's making, and only its address of us, cannot be looked at.
    foreign = known.claim.datapath is DatapathKind.NONE
    if known.attached and not unfinished and same_boot and (foreign or same_place or stands(known)):
        raise _exists(known)
    _detach(services, known, netns, "ADD was repeated")
    if isinstance(request.conf.ipam, DelegateConf):
        delegate.undo_add(services, request, request.conf.ipam)
    return None


def _exists(known: Lease) -> AttachmentExistsError:
    attachment = known.claim.attachment
    addresses = ", ".join(str(address.interface.ip) for address in known.addresses) or "no address"
    return AttachmentExistsError(
        f"{attachment.ifname} of container {attachment.container_id} is attached already with {addresses}; DEL it first"
    )


def wiring_of(lease: Lease) -> Wiring:
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
        routes=lease.routes,
    )


def delegated_addresses(conf: NetConf, ipam: DelegateConf, result: Result) -> tuple[LeasedAddress, ...]:
    """A delegate's addresses as rows of our ledger, in a name space of their own: their manager keeps them unique."""
    pool = f"delegate/{ipam.type}/{conf.name}"
    return tuple(
        LeasedAddress(pool=pool, slot=slot, interface=ip.address, gateway=ip.gateway)
        for slot, ip in enumerate(result.ips)
    )


def answer_of(request: Request, lease: Lease, wired: Wired) -> bytes:
    """The encoded result: a chained plugin's prevResult kept, ours appended (specification, section 5)."""
    interfaces = tuple(
        Interface(name=link.name, mac=link.mac, mtu=link.mtu, sandbox=request.call.netns if link.sandboxed else "")
        for link in wired.links
    )
    ips = tuple(
        Ip(address=endpoint.interface, gateway=endpoint.gateway, interface=len(interfaces) - 1)
        for endpoint in wired.addresses
    )
    dns = effective_dns(request.conf, lease.dns)
    return _encode(request, Result(interfaces=interfaces, ips=ips, routes=wired.routes, dns=dns))


def _answer_addresses(request: Request, lease: Lease) -> bytes:
    ips = tuple(Ip(address=address.interface, gateway=address.gateway) for address in lease.addresses)
    return _encode(request, Result(ips=ips, routes=lease.routes, dns=effective_dns(request.conf, lease.dns)))


def _encode(request: Request, own: Result) -> bytes:
    previous = request.conf.prev_result
    return encode(merge(previous, own) if previous else own, request.conf.cni_version)
