"""Fixtures of the datapath's tests, and the probing of what this kernel can make."""

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from .segment import Machine, Node, Segment, execute
from .traffic import Echo, Listen, echoing, listening


@pytest.fixture
def segment() -> Iterator[Segment]:
    with ExitStack() as undo:
        made = Segment(prefix=f"t{secrets.token_hex(3)}", undo=undo)
        made.switch_on()
        yield made


@pytest.fixture
def node(segment: Segment) -> Node:
    return segment.node(2)


@pytest.fixture
def vm(segment: Segment) -> Machine:
    return segment.vm(9)


@pytest.fixture
def listen() -> Iterator[Listen]:
    """`seen = listen(machine, interface, filter)` starts tcpdump; `seen(text, count)` waits for so many lines."""
    with ExitStack() as undo:
        yield lambda machine, ifname, expression: undo.enter_context(listening(machine, ifname, expression))


@pytest.fixture
def echo() -> Iterator[Echo]:
    """`echo(machine, address)` sends every UDP packet to port 7777 of the address back."""
    with ExitStack() as undo:
        yield lambda machine, address: undo.enter_context(echoing(machine, address))


_KINDS: dict[str, bool] = {}


def _kernel_makes(kind: str) -> bool:
    """Try it in a namespace of our own."""
    if kind not in _KINDS:
        name = f"t{secrets.token_hex(3)}kind"
        execute("ip", "netns", "add", name)
        try:
            execute("ip", "-n", name, "link", "add", "lower", "type", "veth", "peer", "name", "other")
            command = ["ip", "-n", name, "link", "add", "probe", "link", "lower", "type", kind]
            _KINDS[kind] = subprocess.run(command, capture_output=True, check=False).returncode == 0
        finally:
            execute("ip", "netns", "del", name)
    return _KINDS[kind]


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("kind"):
        if not _kernel_makes(marker.args[0]):
            pytest.skip(f"this kernel cannot make {marker.args[0]} links")
