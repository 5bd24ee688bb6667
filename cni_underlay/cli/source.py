"""Where the admin command gets its documents: the agent's socket, or the ledger itself when no agent answers."""

import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cni_underlay.agent.config import DEFAULT_CONFIG, DEFAULT_SOCKET, AgentConfig, load
from cni_underlay.agent.protocol import KIND_ADMIN, receive_answer, request
from cni_underlay.errors import DecodingError, InvalidConfigError, UnderlayError
from cni_underlay.store import reader
from cni_underlay.store.export import event_document, lease_document, usage_document

SECONDS = 10.0


class AgentUnreachableError(UnderlayError):
    """Nobody answers on the socket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A node's agent. `note` of an answer is empty, or says that the answer came from the ledger."""

    socket: Path
    configuration: AgentConfig | None

    def ask(self, command: str, **parameters: str) -> tuple[Any, str]:
        """The document and a note for people."""
        query = {"command": command, **parameters}
        try:
            return self._over_socket(query), ""
        except AgentUnreachableError as error:
            if self.configuration is None:
                raise
            document = self._from_ledger(self.configuration, query)
            return document, f"{error}; read from {self.configuration.ledger}"

    def _over_socket(self, query: Mapping[str, str]) -> Any:  # noqa: ANN401  # a JSON document is anything
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(SECONDS)
            try:
                connection.connect(str(self.socket))
                connection.sendall(request(KIND_ADMIN, {"argv0": "underlayctl"}, json.dumps(query).encode()))
                answer = receive_answer(connection)
            except (OSError, DecodingError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                raise AgentUnreachableError(f"no agent answers at {self.socket} ({reason})") from error
        document = json.loads(answer.stdout)
        if answer.status != 0:
            raise InvalidConfigError(document.get("msg", "the agent refused"), document.get("details", ""))
        return document

    def _from_ledger(self, configuration: AgentConfig, query: Mapping[str, str]) -> Any:  # noqa: ANN401
        ledger = configuration.ledger
        if query["command"] == "leases":
            return [lease_document(lease) for lease in reader.read_leases(ledger)]
        if query["command"] == "pools":
            return usage_document(reader.read_usage(ledger), configuration.settings.pools)
        if query["command"] == "history":
            try:
                address = ip_address(query["address"])
            except ValueError as error:
                raise InvalidConfigError(f"{query['address']!r} is not an IP address") from error
            return [event_document(event) for event in reader.read_history(ledger, address)]
        raise AgentUnreachableError(f"no agent answers at {self.socket}, and only it knows {query['command']}")


def locate(config: Path, socket_path: Path | None) -> Source:
    """The agent that `--socket`, UNDERLAY_SOCKET, or the configuration names, in this order."""
    configuration: AgentConfig | None = None
    if config != DEFAULT_CONFIG:
        configuration = load(config)
    else:
        with suppress(UnderlayError):
            configuration = load(config)
    environment = os.environ.get("UNDERLAY_SOCKET")
    chosen = socket_path or (Path(environment) if environment else None)
    return Source(
        socket=chosen or (configuration.socket if configuration else DEFAULT_SOCKET), configuration=configuration
    )
