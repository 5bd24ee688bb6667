"""GC: end every attachment of the network that the runtime no longer lists."""

from cni_underlay.cni.environment import Verb
from cni_underlay.cni.netconf import DelegateConf
from cni_underlay.errors import InvalidConfigError, UnderlayError
from cni_underlay.plugin import delegate
from cni_underlay.plugin.namespaces import lease_netns
from cni_underlay.plugin.services import Request, Services, retire_master
from cni_underlay.records import DatapathKind, Lease


def collect(services: Services, request: Request) -> bytes:
    """Remove what the list does not name, going on past failures, of which the last line tells.

    Only leases that stood when the request came are judged, and none whose ADD is at work: it is younger than the list.
    """
    failures = _end_stale(services, request)
    if isinstance(request.conf.ipam, DelegateConf):
        try:
            with request.steps.step("delegate"):
                delegate.execute(services, request, request.conf.ipam, Verb.GC)
        except UnderlayError as error:
            failures.append(error)
    _raise(failures)
    return b""


def collect_addresses(services: Services, request: Request) -> bytes:
    """GC as a delegated IPAM plugin."""
    _raise(_end_stale(services, request))
    return b""


def _raise(failures: list[UnderlayError]) -> None:
    """The first failure; the others go along in its details."""
    if failures:
        first, *others = failures
        first.details = "; ".join(filter(None, (first.details, *map(str, others))))
        raise first


def _end_stale(services: Services, request: Request) -> list[UnderlayError]:
    valid = request.conf.valid_attachments
    if valid is None:
        raise InvalidConfigError("cni.dev/valid-attachments: the key is missing, so nothing was removed")
    standing = [lease for lease in services.store.leases() if lease.claim.attachment.network == request.conf.name]
    failures: list[UnderlayError] = []
    with request.steps.step("collect"):
        for lease in standing:
            attachment = lease.claim.attachment
            if (attachment.container_id, attachment.ifname) in valid:
                continue
            if not lease.attached and services.locks.busy(attachment):
                continue
            try:
                end(services, lease, "GC")
            except UnderlayError as error:
                failures.append(error)
    return failures


def end(services: Services, lease: Lease, reason: str) -> None:
    """Take an attachment away on the node's own account: nobody hands us its namespace, so its path is tried."""
    with services.exclusive(lease.claim.attachment):
        current = services.store.find(lease.claim.attachment)
        if current is None or current.generation != lease.generation:
            return
        if lease.claim.datapath is not DatapathKind.NONE:
            with lease_netns(lease, None) as netns:
                services.datapath.delete(lease, netns)
        services.store.release([lease.generation], reason, services.clock())
        retire_master(services, lease)
