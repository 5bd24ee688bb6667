"""Hearing and answering on a test segment."""

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .segment import Machine, until


class Seen:
    """Lines of a running tcpdump."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, text: str, count: int = 1) -> list[str]:
        """Wait for `count` lines that contain the text, and return all that do."""
        return until(lambda: found if len(found := self.matching(text)) >= count else [])

    def matching(self, text: str) -> list[str]:
        return [line for line in self.lines if text in line]


Listen = Callable[[Machine, str, str], Seen]
Echo = Callable[[Machine, str], None]


@contextmanager
def listening(machine: Machine, ifname: str, expression: str) -> Iterator[Seen]:
    command = ["ip", "netns", "exec", machine.name, "tcpdump", "-ttlnei", ifname, "--immediate-mode", expression]
    seen = Seen()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        follower = threading.Thread(target=_follow, args=(process.stdout, seen))
        try:
            assert any("listening on" in line for line in process.stderr)
            follower.start()
            yield seen
        finally:
            process.kill()
            if follower.ident:
                follower.join()


def _follow(stream: Iterator[str], seen: Seen) -> None:
    for line in stream:
        seen.lines.append(line)


@contextmanager
def echoing(machine: Machine, address: str) -> Iterator[None]:
    with machine.inside(datagram_socket) as server:
        server.bind((address, 7777))
        thread = threading.Thread(target=_echo, args=(server,))
        thread.start()
        try:
            yield
        finally:
            with machine.inside(datagram_socket) as client:
                client.sendto(b"end", (address, 7777))
            thread.join()


def _echo(server: socket.socket) -> None:
    while (received := server.recvfrom(64))[0] != b"end":
        server.sendto(*received)


def datagram_socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
