"""GC: end every attachment of the network that the runtime no longer lists."""

import os
from contextlib import suppress

from cni_underlay.cni.environment import Verb
from cni_underlay.cni.netconf import DelegateConf
from cni_underlay.errors import InvalidConfigError, UnderlayError
from cni_underlay.plugin import delegate
from cni_underlay.plugin.services import Request, Services, retire_master
from cni_underlay.records import Lease


def collect(services: Services, request: Request) -> bytes:
    """Remove what the list does not name, going on past failures; the first is raised at the end.

    Only leases that stood when the request came are judged: an ADD at work beside it is younger than its list.
    """
    failures = _end_stale(services, request)
    if isinstance(request.conf.ipam, DelegateConf):
        try:
            delegate.execute(request, request.conf.ipam, Verb.GC)
        except UnderlayError as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return b""


def collect_addresses(services: Services, request: Request) -> bytes:
    """GC as a delegated IPAM plugin."""
    failures = _end_stale(services, request)
    if failures:
        raise failures[0]
    return b""


def _end_stale(services: Services, request: Request) -> list[UnderlayError]:
    valid = request.conf.valid_attachments
    if valid is None:
        raise InvalidConfigError(
            "cni.dev/valid-attachments: the key is missing, so nothing was removed; write null or [] to remove all"
        )
    standing = [lease for lease in services.store.leases() if lease.claim.attachment.network == request.conf.name]
    failures: list[UnderlayError] = []
    with request.steps.step("collect"):
        for lease in standing:
            attachment = lease.claim.attachment
            if (attachment.container_id, attachment.ifname) not in valid:
                try:
                    end(services, lease, "GC")
                except UnderlayError as error:
                    failures.append(error)
    return failures


def end(services: Services, lease: Lease, reason: str) -> None:
    """Take an attachment away on the node's own account: nobody hands us its namespace, so its path is tried."""
    with services.locks.hold(lease.claim.attachment):
        current = services.store.find(lease.claim.attachment)
        if current is None or current.generation != lease.generation:
            return
        netns = open_netns(lease)
        try:
            services.datapath.delete(lease, netns)
        finally:
            if netns is not None:
                os.close(netns)
        services.store.release([lease.generation], reason, services.clock())
        retire_master(services, lease)


def open_netns(lease: Lease) -> int | None:
    """The lease's namespace, if it still stands at its path; the caller closes it."""
    if not lease.claim.netns_inode:
        return None
    with suppress(OSError, ValueError):
        descriptor = os.open(lease.claim.netns_path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        if os.fstat(descriptor).st_ino == lease.claim.netns_inode:
            return descriptor
        os.close(descriptor)
    return None
