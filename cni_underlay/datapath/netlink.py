"""rtnetlink on the wire: attributes, messages, and one socket that sends many of them in one system call.

Own code because the datapath's budget is microseconds: an ADD packed here costs 0.31 ms where pyroute2's calls cost
1.96 ms. Nothing here knows what a link or a route is; `messages` and `facts` do.
"""

import errno
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple, Self

NLM_F_REQUEST = 0x001
NLM_F_ACK = 0x004
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200

NLMSG_ERROR = 2
NLMSG_DONE = 3

SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP = 1
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NETLINK_GET_STRICT_CHK = 12
NLMSGERR_ATTR_MSG = 1
RTNLGRP_LINK = 1

NLA_TYPE_MASK = 0x3FFF  # the two high bits say "nested" and "network byte order"

# linux/netlink.h: struct nlmsghdr {len, type, flags, seq, portid}, struct nlattr {len, type}; all in host byte order.
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")
_INDEX = struct.Struct("=i")  # struct ifinfomsg, after family, padding and type
_EVENT_TIMEOUT = struct.pack("@ll", 30, 0)  # struct timeval; the removal itself takes milliseconds
_U16 = struct.Struct("=H")
_U32 = struct.Struct("=I")

# The kernel fills at most 32 KiB into one datagram of a dump (net/netlink/af_netlink.c, netlink_dump).
_DATAGRAM = 65536
# Messages sent at once at most: a socket's send buffer (208 KiB by default) has to hold them.
_BATCH = 512
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


class Message(NamedTuple):
    """A request without its sequence number: type, flags beyond NLM_F_REQUEST, and everything after the header."""

    kind: int
    flags: int
    payload: bytes


class RefusedError(OSError):
    """The kernel's no to one message: `errno`, its own words where it has any, the message's place in the batch."""

    def __init__(self, number: int, words: str, position: int) -> None:
        super().__init__(number, words or errno.errorcode.get(number, str(number)))
        self.words = words
        self.position = position


def attribute(kind: int, value: bytes) -> bytes:
    length = len(value)
    return _ATTRIBUTE.pack(length + 4, kind) + value + _PADDING[length & 3]


def nested(kind: int, *parts: bytes) -> bytes:
    return attribute(kind, b"".join(parts))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode("utf-8", "surrogateescape") + b"\0")


def number8(kind: int, value: int) -> bytes:
    return attribute(kind, bytes((value,)))


def number16(kind: int, value: int) -> bytes:
    return attribute(kind, _U16.pack(value))


def number32(kind: int, value: int) -> bytes:
    return attribute(kind, _U32.pack(value))


def attributes(data: bytes, start: int = 0) -> dict[int, bytes]:
    """The attributes from `start` to the end, by type; of several with one type the last."""
    found = {}
    end = len(data)
    while start + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < 4:  # noqa: PLR2004  # the attribute's own header
            break
        found[kind & NLA_TYPE_MASK] = data[start + 4 : start + length]
        start += (length + 3) & ~3
    return found


def first(data: bytes, start: int, wanted: int) -> bytes:
    """The first attribute of that type; one zero octet where there is none."""
    end = len(data)
    while start + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if kind & NLA_TYPE_MASK == wanted:
            return data[start + 4 : start + length]
        start += (max(length, 4) + 3) & ~3
    return b"\0"


def word(value: bytes | None) -> int:
    """A 32 bit attribute's number; 0 where the kernel did not send it."""
    return _U32.unpack_from(value)[0] if value else 0


def string(value: bytes | None) -> str:
    """A text attribute; empty where the kernel did not send it."""
    return value.rstrip(b"\0").decode("utf-8", "surrogateescape") if value else ""


class RequestSocket:
    """A NETLINK_ROUTE socket for requests, used by one thread at a time.

    rtnetlink works inside sendmsg(2): when it returns, every answer is already queued. That is why nothing here waits,
    and why only the last message of a batch asks for an acknowledgement: the others speak up when they fail.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._sequence = 0
        for option in (NETLINK_EXT_ACK, NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def attempt(self, messages: Sequence[Message]) -> list[RefusedError]:
        """Send all messages at once; each is tried, whatever happened to those before it. Returns the refusals."""
        refusals = []
        for start in range(0, len(messages), _BATCH):
            first = self._send(messages[start : start + _BATCH], NLM_F_ACK)
            for kind, flags, sequence, payload in self._answers(first):
                if kind == NLMSG_ERROR:
                    if refused := _refusal(payload, flags, start + sequence - first):
                        refusals.append(refused)
                    if sequence == self._sequence:
                        break
        return refusals

    def change(self, *messages: Message) -> None:
        """Send all messages at once and raise the first refusal."""
        if refusals := self.attempt(messages):
            raise refusals[0]

    def get(self, message: Message) -> bytes:
        """The payload of the one answer to a request that is not a dump. Raises `RefusedError`."""
        kind, flags, _, payload = next(self._answers(self._send((message,), 0)))
        if kind == NLMSG_ERROR:
            raise _refusal(payload, flags, 0) or RefusedError(errno.EPROTO, "", 0)
        return payload

    def dump(self, message: Message) -> Iterator[bytes]:
        """The payloads of a dump's answers, parsed as they are asked for; read it to the end before the next request.

        A dump that the kernel marks as interrupted (something changed meanwhile) is given as it is: what it misses was
        made or removed while it ran, and a repetition could promise no more.
        """
        for kind, flags, _, payload in self._answers(self._send((message,), NLM_F_DUMP)):
            if kind in {NLMSG_ERROR, NLMSG_DONE}:
                if refused := _refusal(payload, flags, 0):
                    raise refused
                return
            yield payload

    def see_off(self, message: Message, event: int, index: int) -> None:
        """Send one message and return at its effect: when the event says that link `index` is gone.

        The kernel keeps who removes a link for 10 to 20 ms beyond that, until no processor can still hold a reference
        (rcu_barrier() in netdev_run_todo()); a thread of its own stays for it. Raises the refusal. The socket hears
        events from then on, so that it is good for being closed only.
        """
        self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, RTNLGRP_LINK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _EVENT_TIMEOUT)
        data, sequence = self._packed((message,), NLM_F_ACK)
        threading.Thread(target=self._send_aside, args=(data,), name="netlink", daemon=True).start()
        for kind, flags, number, payload in self._answers(0):
            if kind == NLMSG_ERROR and number == sequence:
                if refused := _refusal(payload, flags, 0):
                    raise refused
                return
            if kind == event and _INDEX.unpack_from(payload, 4)[0] == index:
                return

    def _send_aside(self, data: bytes) -> None:
        with suppress(OSError):  # whoever waits for the answer gives up after `_EVENT_TIMEOUT`
            self._socket.send(data)

    def _send(self, messages: Sequence[Message], last: int) -> int:
        """Number and send; the last message gets the flags `last`. Returns the first sequence number."""
        data, first = self._packed(messages, last)
        self._socket.send(data)
        return first

    def _packed(self, messages: Sequence[Message], last: int) -> tuple[bytes, int]:
        first = sequence = self._sequence + 1 & 0x7FFFFFFF
        final = first + len(messages) - 1
        parts: list[bytes] = []
        for kind, flags, payload in messages:
            length = len(payload)
            flags |= NLM_F_REQUEST | (last if sequence == final else 0)  # noqa: PLW2901  # one word, completed
            parts += _HEADER.pack(16 + length, kind, flags, sequence, 0), payload, _PADDING[length & 3]
            sequence += 1
        self._sequence = final
        return b"".join(parts), first

    def _answers(self, first: int) -> Iterator[tuple[int, int, int, bytes]]:
        """(type, flags, sequence, payload) of every answer to the messages from `first` on, without end."""
        while True:
            data = self._socket.recv(_DATAGRAM)
            start = 0
            while start + 16 <= len(data):
                length, kind, flags, sequence, _ = _HEADER.unpack_from(data, start)
                if sequence >= first:  # an older one belongs to a dump whose reader stopped half-way
                    yield kind, flags, sequence, data[start + 16 : start + length]
                start += (length + 3) & ~3


def _refusal(payload: bytes, flags: int, position: int) -> RefusedError | None:
    """What an NLMSG_ERROR or NLMSG_DONE says; None for an acknowledgement."""
    code = _ERROR.unpack_from(payload)[0] if len(payload) >= 4 else 0  # noqa: PLR2004  # an int
    if code >= 0:
        return None
    words = b""
    # NETLINK_CAP_ACK keeps the request itself out of the answer, so the kernel's words follow its header directly.
    if flags & NLM_F_ACK_TLVS and flags & NLM_F_CAPPED:
        words = attributes(payload, 20).get(NLMSGERR_ATTR_MSG, b"")
    return RefusedError(-code, string(words), position)
