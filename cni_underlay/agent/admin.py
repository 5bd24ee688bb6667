"""What `underlayctl` asks over the socket: plain JSON out of the ledger, nothing that changes anything."""

import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from ipaddress import ip_address
from typing import Any

from cni_underlay.errors import InvalidConfigError
from cni_underlay.plugin.services import Services
from cni_underlay.store.export import event_document, lease_document, usage_document


class Desk:
    """Answers admin calls: `{"command": NAME, ...}` in, a JSON document out."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._commands: dict[str, Callable[[Mapping[str, Any]], Any]] = {
            "version": self._version,
            "leases": self._leases,
            "pools": self._pools,
            "history": self._history,
        }

    def answer(self, query: Mapping[str, Any]) -> bytes:
        """The JSON answer; raises `InvalidConfigError` for a command that does not exist."""
        command = self._commands.get(str(query.get("command")))
        if command is None:
            known = ", ".join(sorted(self._commands))
            raise InvalidConfigError(f"admin command {query.get('command')!r} is not known; known are {known}")
        return json.dumps(command(query), separators=(",", ":")).encode()

    def _version(self, _query: Mapping[str, Any]) -> dict[str, str]:
        return {"agent": version("cni-underlay"), "node": self._services.settings.node}

    def _leases(self, _query: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [lease_document(lease) for lease in self._services.store.leases()]

    def _pools(self, _query: Mapping[str, Any]) -> list[dict[str, Any]]:
        return usage_document(self._services.store.usage(), self._services.settings.pools)

    def _history(self, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        try:
            address = ip_address(str(query.get("address", "")))
        except ValueError as error:
            raise InvalidConfigError(f"address: {query.get('address')!r} is not an IP address") from error
        return [event_document(event) for event in self._services.store.history(address)]
