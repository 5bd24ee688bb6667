"""What can be known of a node from outside: its agent's ledger, and what its kernel has."""

from contextlib import suppress
from typing import Any

from cni_underlay.cli.source import Source
from cni_underlay.lab.node import Node
from cni_underlay.records import IPAddress

from .waiting import wait_until

Document = dict[str, Any]

# Everything of a node's kernel that an attachment may add to, as lines of `ip -batch`; without a family `ip` shows
# both, save for rules.
_LOOKS = {
    "-o": "link show\nroute show table all\nrule show\nneighbour show proxy\nneighbour show nud permanent\n",
    "-6": "rule show\nneighbour show proxy\n",
}


def leases(node: Node) -> list[Document]:
    """Every lease of the node, from its agent."""
    documents: list[Document] = _ask(node, "leases")
    return documents


def history(node: Node, address: IPAddress) -> list[str]:
    """What happened to an address, oldest first."""
    return [str(event["what"]) for event in _ask(node, "history", address=str(address))]


def usage(node: Node, pool: str) -> Document:
    """The pool's counts."""
    return next(row for row in _ask(node, "pools") if row["pool"] == pool)


def kernel(node: Node) -> frozenset[str]:
    """One line for each thing of the node's kernel that pods may leave behind."""
    looks = (node.output(["ip", option, "-batch", "-"], stdin=lines) for option, lines in _LOOKS.items())
    return frozenset(line.strip() for look in looks for line in look.splitlines())


def at_rest(node: Node, before: frozenset[str]) -> frozenset[str]:
    """`kernel`, once nothing is new since `before`: the agent keeps its own link for a second after the last pod."""
    with suppress(TimeoutError):
        wait_until(lambda: kernel(node) <= before, "something is new on the node", seconds=5.0)
    return kernel(node)


def _ask(node: Node, command: str, **parameters: str) -> Any:  # a JSON document is anything
    document, _ = Source(socket=node.agent.socket, configuration=None).ask(command, **parameters)
    return document
