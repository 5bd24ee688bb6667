"""A configuration list, driven as libcni drives it: what one plugin answers is the next one's prevResult."""

from dataclasses import dataclass, field
from typing import Any

from .calls import Outcome
from .netns import Pod
from .network import CACHED_SINCE, in_version
from .node import Node

# Debian's tools, for the reference plugins that execute iptables; ours gets it too and must not mind.
TOOLS = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


@dataclass(slots=True, kw_only=True)
class Chain:
    """A list of plugins under one name and version. `capabilities` are what the runtime offers to each attachment."""

    node: Node
    name: str
    plugins: list[dict[str, Any]]
    version: str = "1.0.0"
    capabilities: dict[str, Any] = field(default_factory=dict)
    cache: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def add(self, pod: Pod, ifname: str = "eth0", *, args: str = "") -> dict[str, Any]:
        """The final result; asserts that each plugin succeeds."""
        outcome = self.try_add(pod, ifname, args=args)
        return outcome.result

    def try_add(self, pod: Pod, ifname: str = "eth0", *, args: str = "") -> Outcome:
        """The last outcome: of the last plugin, or of the first that failed. No DEL follows."""
        previous: dict[str, Any] | None = None
        for plugin in self.plugins:
            outcome = self._call("ADD", plugin, pod, ifname, previous, args)
            if outcome.status != 0:
                return outcome
            previous = in_version(outcome.result, self.version)
        assert previous is not None
        self.cache[pod.container, ifname] = previous
        return outcome

    def check(self, pod: Pod, ifname: str = "eth0", *, besides: str = "") -> None:
        """CHECK of each plugin but the one named, in order; asserts that each succeeds."""
        for plugin in self.plugins:
            if plugin["type"] == besides:
                continue
            self._call("CHECK", plugin, pod, ifname, self.cache[pod.container, ifname]).succeed()

    def delete(self, pod: Pod, ifname: str = "eth0", *, netns: str | None = None) -> None:
        """DEL in reverse order; asserts that each succeeds."""
        previous = self.cache.pop((pod.container, ifname), None) if self.version >= CACHED_SINCE else None
        for plugin in reversed(self.plugins):
            self._call("DEL", plugin, pod, ifname, previous, netns=netns).succeed()

    def _call(
        self,
        verb: str,
        plugin: dict[str, Any],
        pod: Pod,
        ifname: str,
        previous: dict[str, Any] | None,
        args: str = "",
        netns: str | None = None,
    ) -> Outcome:
        declared = {key for key, value in plugin.get("capabilities", {}).items() if value}
        runtime = {key: value for key, value in self.capabilities.items() if key in declared}
        conf = {**plugin, "name": self.name, "cniVersion": self.version}
        conf |= {"runtimeConfig": runtime} if runtime else {}
        conf |= {"prevResult": previous} if previous is not None else {}
        return self.node.cni(
            verb,
            conf,
            container=pod.container,
            netns=pod.path if netns is None else netns,
            ifname=ifname,
            args=args,
            env=dict(TOOLS),
            plugin=plugin["type"],
        )
