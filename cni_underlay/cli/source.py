"""Where the admin command gets its documents: the agent's socket, or the ledger itself when no agent answers."""

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cni_underlay.agent.config import DEFAULT_CONFIG, DEFAULT_SOCKET, AgentConfig, load
from cni_underlay.agent.protocol import KIND_ADMIN, receive_answer, request
from cni_underlay.errors import DecodingError, InvalidConfigError, StoreUnavailableError, UnderlayError
from cni_underlay.records import IPAddress
from cni_underlay.store.export import event_document, lease_document, usage_document
from cni_underlay.store.reader import read_history, read_leases, read_usage

SECONDS = 10.0


class AgentUnreachableError(UnderlayError):
    """Nobody answers on the socket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A node's agent. `configuration` is None where nothing says where the ledger of this very agent is."""

    socket: Path
    configuration: AgentConfig | None

    def ask(self, command: str, **parameters: str) -> tuple[Any, str]:
        """The document and a note for people, which is empty, or says that the answer came from the ledger."""
        query = {"command": command, **parameters}
        try:
            return self._over_socket(query), ""
        except AgentUnreachableError as error:
            if self.configuration is None or command not in ("leases", "pools", "history"):
                raise
            try:
                document = _from_ledger(self.configuration, query)
            except StoreUnavailableError as unreadable:
                raise StoreUnavailableError(f"{error}; {unreadable}", unreadable.details) from unreadable
            return document, f"{error}; read from {self.configuration.ledger}"

    def _over_socket(self, query: Mapping[str, str]) -> Any:  # noqa: ANN401  # a JSON document is anything
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(SECONDS)
            try:
                connection.connect(str(self.socket))
                connection.sendall(request(KIND_ADMIN, {"argv0": "underlayctl"}, json.dumps(query).encode()))
                answer = receive_answer(connection)
                document = json.loads(answer.stdout)
            except (OSError, DecodingError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                raise AgentUnreachableError(f"no agent answers at {self.socket} ({reason})") from error
        if answer.status != 0:
            raise InvalidConfigError(document.get("msg", "the agent refused"), document.get("details", ""))
        return document


def locate(config: Path, socket_path: Path | None) -> Source:
    """The agent that `--socket`, UNDERLAY_SOCKET, or the configuration names, in this order.

    A wrong configuration is no reason not to ask an agent that runs, unless it was named on purpose.
    """
    configuration: AgentConfig | None = None
    try:
        configuration = load(config)
    except UnderlayError:
        if config != DEFAULT_CONFIG:
            raise
    environment = os.environ.get("UNDERLAY_SOCKET")
    configured = configuration.socket if configuration else DEFAULT_SOCKET
    chosen = socket_path or (Path(environment) if environment else configured)
    return Source(socket=chosen, configuration=configuration if chosen == configured else None)


def _from_ledger(configuration: AgentConfig, query: Mapping[str, str]) -> list[dict[str, Any]]:
    ledger = configuration.ledger
    if query["command"] == "leases":
        return [lease_document(lease) for lease in read_leases(ledger)]
    if query["command"] == "pools":
        return usage_document(read_usage(ledger), configuration.settings.pools)
    return [event_document(event) for event in read_history(ledger, _address(query["address"]))]


def _address(text: str) -> IPAddress:
    try:
        return ip_address(text)
    except ValueError as error:
        raise InvalidConfigError(f"address: {text!r} is not an IP address") from error
