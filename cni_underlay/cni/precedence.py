"""Where several sources ask for the same thing, which of them counts: the stronger replaces the weaker entirely.

runtimeConfig, then `args.cni`, then CNI_ARGS (CONVENTIONS.md), then the configuration. A weaker source that is replaced
is not even read, so that what is wrong in it does not matter.
"""

from cni_underlay.cni import grammar
from cni_underlay.cni.environment import Call
from cni_underlay.cni.netconf import NetConf
from cni_underlay.errors import InvalidConfigError
from cni_underlay.records import Dns, IPAddress


def requested_ips(conf: NetConf, call: Call) -> tuple[IPAddress, ...]:
    """The addresses asked for; raises `InvalidConfigError`, or `InvalidEnvironmentError` where CNI_ARGS is wrong."""
    for texts, where in ((conf.runtime.ips, "runtimeConfig.ips"), (conf.args.ips, "args.cni.ips")):
        if texts:
            try:
                return tuple(grammar.address(text) for text in texts)
            except ValueError as error:
                raise InvalidConfigError(f"{where}: {error}") from error
    return call.args.ip


def requested_mac(conf: NetConf, call: Call) -> str:
    """The MAC asked for, '' where none is; raises as `requested_ips`."""
    for text, where in ((conf.runtime.mac, "runtimeConfig.mac"), (conf.args.mac, "args.cni.mac")):
        if text:
            try:
                return grammar.mac(text)
            except ValueError as error:
                raise InvalidConfigError(f"{where}: {error}") from error
    return call.args.mac or conf.mac


def effective_dns(conf: NetConf, ipam_dns: Dns) -> Dns:
    """The DNS of the result: the runtime's, else the configuration's where it has any, else the address giver's.

    The reference macvlan and ipvlan drop the last even for an empty configuration; ptp and bridge do as this does.
    """
    return next((dns for dns in (conf.runtime.dns, conf.dns) if dns != Dns()), ipam_dns)
