"""A network of a node as its runtime knows it: the configuration, and libcni's cache of what each ADD answered."""

import copy
import json
from dataclasses import dataclass, field
from ipaddress import ip_interface
from typing import Any

from .calls import Outcome
from .kinds import Json, Option
from .netns import Pod
from .node import GATEWAY4, GATEWAY6, MASTER, SUBNET4, SUBNET6, Node

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
CACHED_SINCE = "0.4.0"  # below it libcni hands no result back
DEFAULT_ROUTES = ({"dst": "0.0.0.0/0"}, {"dst": "::/0"})
_FROM_CACHE = {"from": "cache"}


def range4(first: int = 16, last: int = 250) -> dict[str, str]:
    """A range of the segment; the machines on it have the addresses below .16."""
    base = SUBNET4.rpartition(".")[0]
    return {
        "subnet": SUBNET4,
        "rangeStart": f"{base}.{first}",
        "rangeEnd": f"{base}.{last}",
        "gateway": GATEWAY4,
    }


def range6(first: int = 0x1000, last: int = 0x1FFF) -> dict[str, str]:
    base = SUBNET6.removesuffix("/64")
    return {"subnet": SUBNET6, "rangeStart": f"{base}{first:x}", "rangeEnd": f"{base}{last:x}", "gateway": GATEWAY6}


def inline(*sets: dict[str, str] | list[dict[str, str]], **more: Option) -> dict[str, Any]:
    """Our own `ipam` block with these ranges (one of each family where none are given), and their default routes."""
    chosen = [entry if isinstance(entry, list) else [entry] for entry in sets or (range4(), range6())]
    families = {":" in entry[0]["subnet"] for entry in chosen}
    routes = [route for route in DEFAULT_ROUTES if (":" in route["dst"]) in families]
    return {"type": "underlay-ipam", "ranges": chosen, "routes": routes} | more


def in_version(result: dict[str, Any], version: str) -> dict[str, Any]:
    """`result` as libcni hands it back to a configuration of that version, which is the one it has."""
    return {**copy.deepcopy(result), "cniVersion": version}


@dataclass(slots=True, kw_only=True)
class Network:
    """Calls for one network. Container, namespace and interface are the pod's own and eth0 unless said otherwise."""

    node: Node
    conf: dict[str, Any]
    plugin: str = "underlay"
    cache: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.conf["name"])

    @property
    def version(self) -> str:
        return str(self.conf.get("cniVersion") or "0.1.0")

    def call(
        self,
        verb: str,
        pod: Pod | None,
        *,
        ifname: str = "eth0",
        container: str | None = None,
        netns: str | None = None,
        extra: dict[str, Any] | None = None,
        **options: Option,
    ) -> Outcome:
        """`extra` keys replace the configuration's. The rest goes to the caller."""
        return self.node.cni(
            verb,
            self.conf | (extra or {}),
            container=pod.container if container is None and pod else container or "",
            netns=pod.path if netns is None and pod else netns or "",
            ifname=ifname,
            plugin=options.pop("plugin", self.plugin),
            **options,
        )

    def add(self, pod: Pod | None, *, ifname: str = "eth0", container: str | None = None, **options: Option) -> Outcome:
        outcome = self.call("ADD", pod, ifname=ifname, container=container, **options)
        if outcome.status == 0 and outcome.stdout:
            self.cache[self._key(pod, container), ifname] = outcome.result
        return outcome

    def delete(
        self,
        pod: Pod | None,
        *,
        ifname: str = "eth0",
        container: str | None = None,
        previous: Json = _FROM_CACHE,
        **options: Option,
    ) -> Outcome:
        """DEL with the result of the ADD where the version hands it back; `previous` None leaves it out."""
        cached = self._previous(self._key(pod, container), ifname, previous)
        options["extra"] = cached | (options.get("extra") or {})
        return self.call("DEL", pod, ifname=ifname, container=container, **options)

    def check(
        self,
        pod: Pod,
        *,
        ifname: str = "eth0",
        container: str | None = None,
        previous: Json = _FROM_CACHE,
        **options: Option,
    ) -> Outcome:
        cached = self._previous(self._key(pod, container), ifname, previous)
        options["extra"] = cached | (options.get("extra") or {})
        return self.call("CHECK", pod, ifname=ifname, container=container, **options)

    def status(self, **extra: Option) -> Outcome:
        return self.call("STATUS", None, ifname="", extra=extra)

    def collect(self, *valid: tuple[Pod, str], **extra: Option) -> Outcome:
        """GC with these attachments valid."""
        listed = [{"containerID": pod.container, "ifname": ifname} for pod, ifname in valid]
        return self.call(
            "GC",
            None,
            ifname="",
            extra={"cni.dev/valid-attachments": listed, "cni.dev/attachments": listed, **extra},
        )

    def clear(self) -> Outcome:
        """GC of everything, whatever the network's own version and IPAM are."""
        conf = {
            "cniVersion": "1.1.0",
            "name": self.name,
            "type": "underlay",
            "ipam": {"type": "underlay-ipam"},
            "cni.dev/valid-attachments": [],
        }
        return self.node.cni("GC", conf)

    def leases(self) -> list[dict[str, Any]]:
        return self.node.leases(self.name)

    def result(self, pod: Pod, ifname: str = "eth0") -> dict[str, Any]:
        """A copy of what the ADD answered."""
        return copy.deepcopy(self.cache[pod.container, ifname])

    def _key(self, pod: Pod | None, container: str | None) -> str:
        return pod.container if container is None and pod else container or ""

    def _previous(self, container: str, ifname: str, previous: Json) -> dict[str, Any]:
        if previous is not _FROM_CACHE:
            return {} if previous is None else {"prevResult": previous}
        cached = self.cache.get((container, ifname))
        if cached is None or self.version < CACHED_SINCE:
            return {}
        return {"prevResult": in_version(cached, self.version)}


def addresses(result: dict[str, Any]) -> list[str]:
    """The addresses of a result in any version's form, with prefix length."""
    if "ips" in result:
        return [entry["address"] for entry in result["ips"]]
    return [result[family]["ip"] for family in ("ip4", "ip6") if family in result]


def hosts(result: dict[str, Any]) -> list[str]:
    """The addresses of a result alone."""
    return [str(ip_interface(address).ip) for address in addresses(result)]


def own_interface(result: dict[str, Any], ifname: str = "eth0") -> dict[str, Any]:
    """The sandbox's entry of that name; there must be exactly one."""
    (entry,) = [entry for entry in result["interfaces"] if entry["name"] == ifname]
    assert entry["sandbox"]
    return dict(entry)


def network_conf(
    name: str, *, datapath: str, version: str | None, ipam: dict[str, Any], **more: Option
) -> dict[str, Any]:
    """A configuration of our plugin as a runtime sends it; a `version` of None leaves the key out."""
    head = {} if version is None else {"cniVersion": version}
    return {**head, "name": name, "type": "underlay", "datapath": datapath, "master": MASTER, "ipam": ipam, **more}


def compact(value: Json) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
