"""STATUS: can this node serve an ADD of this configuration at this moment? It reads only, and waits for no lock."""

from cni_underlay.cni.environment import Verb
from cni_underlay.cni.netconf import DelegateConf, IpamConf
from cni_underlay.errors import (
    DatapathError,
    InvalidConfigError,
    LimitedConnectivityError,
    PluginNotAvailableError,
    StoreUnavailableError,
)
from cni_underlay.plugin import delegate
from cni_underlay.plugin.pools import resolve
from cni_underlay.plugin.services import Request, Services


def status(services: Services, request: Request) -> bytes:
    """Raise `PluginNotAvailableError` (50) or `LimitedConnectivityError` (51) when an ADD would fail."""
    conf = request.conf
    try:
        master = conf.master or services.datapath.default_master()
        present = services.datapath.master_exists(master)
    except InvalidConfigError as error:
        raise PluginNotAvailableError(str(error), error.details) from error
    if not present:
        raise PluginNotAvailableError(f"master {master!r} is missing on this node")
    try:
        services.datapath.require_master(master)
    except DatapathError as error:
        # The master is there and down: pods that run on it have lost the network too.
        raise LimitedConnectivityError(str(error), error.details) from error
    if isinstance(conf.ipam, IpamConf):
        return status_addresses(services, request)
    if isinstance(conf.ipam, DelegateConf):
        delegate.execute(services, request, conf.ipam, Verb.STATUS, delegate.STATUS_SECONDS)
    return b""


def status_addresses(services: Services, request: Request) -> bytes:
    """STATUS as a delegated IPAM plugin: the ledger can be written, and (where configured) some pool has room."""
    try:
        services.store.require_writable()
    except StoreUnavailableError as error:
        raise PluginNotAvailableError(str(error), error.details) from error
    if not isinstance(request.conf.ipam, IpamConf):
        raise InvalidConfigError("ipam: an `ipam` block of type underlay-ipam is needed here")
    pools = resolve(request.conf, request.conf.ipam, services.settings)
    if services.settings.exhausted_is_not_ready:
        now = services.clock()
        if pools and not any(services.store.has_room(pool, now) for pool in pools):
            names = ", ".join(pool.name for pool in pools)
            raise PluginNotAvailableError(f"no pool has a free address: {names}")
    return b""
