"""Telling the segment who has an address: ARP and unsolicited ND at 0, 1 and 3 seconds after ADD.

All frames leave by the master, those of macvlan pods under the pod's MAC, as its own would. A packet socket inside each
pod's namespace would do the same, but would keep the namespace alive, and closing one costs 16 ms (RCU, in
packet_release()).
"""

import heapq
import itertools
import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from cni_underlay.datapath.messages import IPV4
from cni_underlay.datapath.netns import Node
from cni_underlay.records import Attachment, IPAddress

_PAUSES = (1.0, 2.0)  # so at 1 and at 3 seconds
_TICK = 0.5  # seconds; below the shortest pause, so that the thread never sleeps past what was put in meanwhile

_ETH_P_ARP, _ETH_P_IPV6 = 0x0806, 0x86DD
_BROADCAST = b"\xff" * 6
_ALL_NODES_MAC = bytes.fromhex("333300000001")
_ALL_NODES = bytes.fromhex("ff020000000000000000000000000001")
_ICMPV6 = 58
_OVERRIDE = 0x20000000


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """Frames of one attachment, ready to send by the interface `master`."""

    attachment: Attachment
    master: str
    frames: tuple[tuple[int, bytes], ...]


def announcement(attachment: Attachment, master: str, mac: bytes, ips: tuple[IPAddress, ...]) -> Announcement:
    frames = tuple(
        (_ETH_P_ARP, arp(ip, mac)) if ip.version == IPV4 else (_ETH_P_IPV6, advertisement(ip, mac)) for ip in ips
    )
    return Announcement(attachment=attachment, master=master, frames=frames)


def arp(ip: IPAddress, mac: bytes) -> bytes:
    """A gratuitous ARP request (RFC 5944, 4.6), the form that every stack takes in."""
    header = _BROADCAST + mac + struct.pack("!HHHBBH", _ETH_P_ARP, 1, 0x0800, 6, 4, 1)
    return header + mac + ip.packed + bytes(6) + ip.packed


def advertisement(ip: IPAddress, mac: bytes) -> bytes:
    """An unsolicited neighbour advertisement to all nodes, with the override flag (RFC 4861, 7.2.6)."""
    body = struct.pack("!BBHI", 136, 0, 0, _OVERRIDE) + ip.packed + b"\x02\x01" + mac
    pseudo = ip.packed + _ALL_NODES + struct.pack("!II", len(body), _ICMPV6)
    checked = body[:2] + _checksum(pseudo + body) + body[4:]
    ethernet = _ALL_NODES_MAC + mac + struct.pack("!H", _ETH_P_IPV6)
    return ethernet + struct.pack("!IHBB", 6 << 28, len(body), _ICMPV6, 255) + ip.packed + _ALL_NODES + checked


def _checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:  # noqa: PLR2004  # RFC 1071: fold the carries in
        total = (total >> 16) + (total & 0xFFFF)
    return struct.pack("!H", total ^ 0xFFFF)


class Announcer:
    """Sends at once from the calling thread (8 µs a frame), and again from one thread of its own."""

    def __init__(self, node: Node) -> None:
        # Protocol 0: a socket that only sends, so the kernel copies no traffic for it.
        self._socket = node.run(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0))
        self._changed = threading.Condition()
        self._standing: dict[Attachment, Announcement] = {}
        self._due: list[tuple[float, int, Announcement, tuple[float, ...]]] = []
        self._order = itertools.count()  # the heap never has to compare two announcements
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)
        self._thread.start()

    def announce(self, announcement: Announcement) -> None:
        """Send the frames and see to their repetition. Never raises: a lost announcement is repeated or not missed."""
        self._send(announcement)
        with self._changed:
            self._standing[announcement.attachment] = announcement
            self._schedule(announcement, _PAUSES)

    def cancel(self, attachment: Attachment) -> None:
        """Send nothing more for the attachment: its address is about to be somebody else's."""
        with self._changed:
            self._standing.pop(attachment, None)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while (announcement := self._next()) is not None:
            self._send(announcement)

    def _next(self) -> Announcement | None:
        """The next one that is due and still stands; waits for it. None when closed."""
        with self._changed:
            while not self._closed:
                wait = self._due[0][0] - time.monotonic() if self._due else _TICK
                if wait > 0:
                    self._changed.wait(min(wait, _TICK))
                    continue
                _, _, announcement, pauses = heapq.heappop(self._due)
                if self._standing.get(announcement.attachment) is announcement:
                    if pauses:
                        self._schedule(announcement, pauses)
                    else:
                        del self._standing[announcement.attachment]
                    return announcement
        return None

    def _schedule(self, announcement: Announcement, pauses: tuple[float, ...]) -> None:
        """Put the next repetition on the heap. Wakes nobody: the thread looks in time; to wake it costs 0.3 ms."""
        due = time.monotonic() + pauses[0]
        heapq.heappush(self._due, (due, next(self._order), announcement, pauses[1:]))

    def _send(self, announcement: Announcement) -> None:
        for protocol, frame in announcement.frames:
            # The master may be down or gone by now: then nobody is there to hear.
            with suppress(OSError):
                self._socket.sendto(frame, (announcement.master, protocol))
