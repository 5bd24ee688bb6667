"""From what a configuration asks for to the pools that can give it."""

from pathlib import Path

from cni_underlay.cni.netconf import IpamConf, NetConf
from cni_underlay.errors import InvalidConfigError
from cni_underlay.ipam.pools import inline_pool
from cni_underlay.plugin.services import Settings
from cni_underlay.records import Dns, Pool


def resolve(conf: NetConf, ipam: IpamConf, settings: Settings) -> tuple[Pool, ...]:
    """The pools of a request, in the order of preference; raises `InvalidConfigError` for a name that nobody defined.

    None at all is what a STATUS may have, whose ranges come with each pod (runtimeConfig).
    """
    if ipam.pools:
        return tuple(_named(name, settings) for name in ipam.pools)
    if not ipam.ranges:
        return ()
    dns = _resolv_conf(ipam.resolv_conf) if ipam.resolv_conf else Dns()
    pool = inline_pool(conf.name, ipam.ranges, ipam.routes, dns, quarantine=settings.quarantine, floor=settings.floor)
    return (pool,)


def _named(name: str, settings: Settings) -> Pool:
    try:
        return settings.pools[name]
    except KeyError:
        known = ", ".join(sorted(settings.pools)) or "none"
        raise InvalidConfigError(
            f"ipam.pools: node {settings.node!r} has no pool {name!r}; it has: {known}. Add it to agent.yaml or pools.d"
        ) from None


def _resolv_conf(path: str) -> Dns:
    """The `dns` object of a resolv.conf(5) file, as host-local reads it."""
    try:
        lines = Path(path).read_text("utf-8", "replace").splitlines()
    except (OSError, ValueError) as error:
        raise InvalidConfigError(f"ipam.resolvConf: cannot read {path!r}", str(error)) from error
    found: dict[str, list[str]] = {"nameserver": [], "domain": [], "search": [], "options": []}
    for line in lines:
        keyword, *values = line.split() or [""]
        if keyword in found and not line.startswith(("#", ";")):
            found[keyword].extend(values)
    return Dns(
        nameservers=tuple(found["nameserver"]),
        domain=(found["domain"] or [""])[-1],
        search=tuple(found["search"]),
        options=tuple(found["options"]),
    )
