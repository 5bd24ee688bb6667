"""Where connections wait whose request is not whole yet: one thread watches all of them, so that none holds a worker.

A client sends its frame in one go, right after connecting, and never comes here. Who does is stopped, stuck or hostile.
"""

import select
import threading
import time
from collections.abc import Callable

from cni_underlay.agent.log import LOGGER
from cni_underlay.agent.protocol import Frame, Incoming, SilentPeerError
from cni_underlay.errors import DecodingError

SECONDS = 5.0  # from the moment it came here; then it is shown the door
PLACES = 256  # who waits longest leaves first; far below the 1024 descriptors that a process has by default


class Lobby:
    """`enter` takes over a connection with its whole request. The watching thread ends when nobody waits."""

    def __init__(self, enter: Callable[[Incoming, Frame], None]) -> None:
        self._enter = enter
        self._guard = threading.Lock()
        self._poll = select.epoll()
        self._waiting: dict[int, tuple[Incoming, float]] = {}  # in the order of arrival, and so of the deadlines
        self._watched = False

    def keep(self, incoming: Incoming) -> None:
        """Take over a connection that has to wait."""
        with self._guard:
            if len(self._waiting) >= PLACES:
                self._turn_away(next(iter(self._waiting)), "too many wait with unfinished requests")
            descriptor = incoming.connection.fileno()
            self._waiting[descriptor] = (incoming, time.monotonic() + SECONDS)
            self._poll.register(descriptor, select.EPOLLIN | select.EPOLLRDHUP)
            if not self._watched:
                self._watched = True
                threading.Thread(target=self._watch, name="lobby", daemon=True).start()

    def _watch(self) -> None:
        while True:
            with self._guard:
                now = time.monotonic()
                for descriptor in [key for key, (_, deadline) in self._waiting.items() if deadline <= now]:
                    self._turn_away(descriptor, f"no whole request within {SECONDS:.0f} s")
                if not self._waiting:
                    self._watched = False
                    return
                _, deadline = next(iter(self._waiting.values()))
            for descriptor, _ in self._poll.poll(deadline - now):
                self._hear(descriptor)

    def _hear(self, descriptor: int) -> None:
        with self._guard:
            if descriptor not in self._waiting:
                return
            incoming, _ = self._waiting[descriptor]
            try:
                frame = incoming.advance()
            except SilentPeerError:
                self._turn_away(descriptor, "")
                return
            except (DecodingError, OSError) as error:
                self._turn_away(descriptor, str(error))
                return
            if frame is None:
                return
            self._forget(descriptor)
        self._enter(incoming, frame)

    def _turn_away(self, descriptor: int, reason: str) -> None:
        if reason:
            LOGGER.warning("request unreadable", extra={"error": reason})
        incoming, _ = self._waiting[descriptor]
        self._forget(descriptor)
        incoming.close()

    def _forget(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        del self._waiting[descriptor]
