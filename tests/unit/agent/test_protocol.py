"""Frames: what is written is read, in whatever pieces it comes, and what is no frame is refused in one way."""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_underlay.agent import protocol
from cni_underlay.agent.protocol import Answer, Frame, Incoming, SilentPeerError
from cni_underlay.errors import DecodingError

KEYS = st.text(st.characters(exclude_characters="=\0", exclude_categories=["Cs"]), min_size=1)
VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
ENVIRONMENTS = st.dictionaries(KEYS, VALUES, max_size=8)
HEADERS = st.builds(
    struct.Struct("!4sIIII").pack,
    st.sampled_from([protocol.MAGIC, b"UNL2", b"\0\0\0\0"]),
    st.integers(0, 0xFFFFFFFF),
    st.integers(0, 0xFFFFFFFF),
    st.one_of(st.integers(0, 64), st.integers(0, 0xFFFFFFFF)),
    st.one_of(st.integers(0, 64), st.integers(0, 0xFFFFFFFF)),
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Incoming]]:
    ours, theirs = socket.socketpair()
    incoming = Incoming(theirs)
    try:
        yield ours, incoming
    finally:
        ours.close()
        incoming.close()


@given(kind=st.integers(0, 0xFFFFFFFF), environment=ENVIRONMENTS, body=st.binary(max_size=200))
def test_a_written_request_is_read_back(kind: int, environment: dict[str, str], body: bytes) -> None:
    frame = protocol.parse(protocol.request(kind, environment, body))
    assert frame == Frame(kind=kind, environment=environment, body=body)


@given(data=st.one_of(st.binary(max_size=200), st.builds(bytes.__add__, HEADERS, st.binary(max_size=128))))
def test_parsing_anything_gives_a_frame_or_a_decoding_error(data: bytes) -> None:
    try:
        frame = protocol.parse(data)
    except DecodingError:
        return
    assert len(frame.body) <= len(data)


@given(environment=ENVIRONMENTS, body=st.binary(max_size=100), data=st.data())
def test_a_frame_that_was_cut_or_lengthened_is_refused(
    environment: dict[str, str], body: bytes, data: st.DataObject
) -> None:
    whole = protocol.request(protocol.KIND_CNI, environment, body)
    cut = data.draw(st.integers(0, len(whole) - 1))
    for torn in (whole[:cut], whole + b"x"):
        with pytest.raises(DecodingError):
            protocol.parse(torn)


def test_of_a_variable_that_comes_twice_the_first_counts() -> None:
    block = b"argv0=underlay\0A=1\0A=2\0no equals sign\0=nameless\0"
    frame = protocol.parse(struct.pack("!4sIIII", b"UNL1", 1, 0, len(block), 0) + block)
    assert frame.environment == {"argv0": "underlay", "A": "1", "": "nameless"}


def test_bytes_that_are_not_utf8_survive_both_ways() -> None:
    environment = {"A": os.fsdecode(b"\xff\xfe\x80")}
    assert protocol.parse(protocol.request(1, environment, b"")).environment == environment


@given(environment=ENVIRONMENTS, body=st.binary(max_size=300), cuts=st.lists(st.integers(0, 600), max_size=6))
def test_a_request_is_read_in_whatever_pieces_it_comes(
    environment: dict[str, str], body: bytes, cuts: list[int]
) -> None:
    whole = protocol.request(protocol.KIND_CNI, environment, body)
    bounds = sorted({0, len(whole), *(cut % len(whole) for cut in cuts)})
    ours, theirs = socket.socketpair()
    with ours, theirs:
        incoming = Incoming(theirs)
        assert incoming.advance() is None
        for start, end in pairwise(bounds):
            ours.sendall(whole[start:end])
            frame = incoming.advance()
            assert (frame is None) == (end < len(whole))
        assert frame == protocol.parse(whole)


def test_a_peer_that_leaves_without_a_byte_is_told_apart(pair: tuple[socket.socket, Incoming]) -> None:
    ours, incoming = pair
    ours.close()
    with pytest.raises(SilentPeerError):
        incoming.advance()


def test_a_peer_that_leaves_in_the_middle_is_an_error(pair: tuple[socket.socket, Incoming]) -> None:
    ours, incoming = pair
    ours.sendall(b"UNL1")
    assert incoming.advance() is None
    ours.close()
    with pytest.raises(DecodingError) as caught:
        incoming.advance()
    assert not isinstance(caught.value, SilentPeerError)


def test_the_namespace_comes_with_the_first_byte_and_belongs_to_the_frame(
    pair: tuple[socket.socket, Incoming],
) -> None:
    ours, incoming = pair
    reader, writer = os.pipe()
    try:
        whole = protocol.request(protocol.KIND_CNI, {"A": "1"}, b"{}")
        socket.send_fds(ours, [whole[:5]], [writer])
        assert incoming.advance() is None
        ours.sendall(whole[5:])
        frame = incoming.advance()
        assert frame is not None
        assert frame.netns is not None
        assert os.get_inheritable(frame.netns) is False
        assert os.fstat(frame.netns).st_ino == os.fstat(writer).st_ino
        incoming.close()
        assert os.fstat(frame.netns)
        frame.close()
    finally:
        os.close(reader)
        os.close(writer)


def test_a_connection_that_is_closed_early_gives_the_namespace_back(pair: tuple[socket.socket, Incoming]) -> None:
    ours, incoming = pair
    reader, writer = os.pipe()
    try:
        socket.send_fds(ours, [b"UNL1"], [writer])
        assert incoming.advance() is None
        os.close(writer)
        incoming.close()
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


@given(status=st.integers(0, 255), stdout=st.binary(max_size=300), stderr=st.binary(max_size=300))
def test_a_written_answer_is_read_back(status: int, stdout: bytes, stderr: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        answer = Answer(status=status, stdout=stdout, stderr=stderr)
        ours.sendall(protocol.answer(answer))
        assert protocol.receive_answer(theirs) == answer


@given(data=st.binary(max_size=64))
def test_reading_anything_as_an_answer_gives_an_answer_or_a_decoding_error(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(data)
        ours.close()
        with suppress(DecodingError):
            assert protocol.receive_answer(theirs).status < 1 << 32
