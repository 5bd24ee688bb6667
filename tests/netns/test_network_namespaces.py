"""Entering namespaces by descriptor: threads come back, others are not moved, and strangers are told apart."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cni_underlay.datapath import netns
from cni_underlay.errors import InvalidNamespaceError

from . import values
from .segment import Segment


def own_inode() -> int:
    return Path("/proc/thread-self/ns/net").stat().st_ino


def test_only_the_calling_thread_is_inside_and_it_comes_back(segment: Segment) -> None:
    pod, home = segment.pod(), own_inode()
    entered, leave = threading.Event(), threading.Event()
    seen: list[int] = []

    def stay() -> None:
        seen.append(own_inode())
        entered.set()
        leave.wait()

    thread = threading.Thread(target=netns.inside, args=(pod.descriptor, stay))
    thread.start()
    entered.wait()
    assert own_inode() == home
    leave.set()
    thread.join()
    assert seen == [netns.inode(pod.descriptor)] != [home]
    assert netns.inside(pod.descriptor, own_inode) == seen[0]
    assert own_inode() == home


def test_a_thread_comes_back_to_where_it_was(segment: Segment) -> None:
    outer, inner, home = segment.pod(), segment.pod(), own_inode()

    def visit() -> list[int]:
        return [own_inode(), netns.inside(inner.descriptor, own_inode), own_inode()]

    first, second = netns.inode(outer.descriptor), netns.inode(inner.descriptor)
    assert netns.inside(outer.descriptor, visit) == [first, second, first]
    assert own_inode() == home


def test_the_thread_comes_back_from_a_failure(segment: Segment) -> None:
    pod, home = segment.pod(), own_inode()
    with pytest.raises(ZeroDivisionError):
        netns.inside(pod.descriptor, lambda: 1 // 0)
    assert own_inode() == home


def test_a_process_that_cannot_come_back_does_not_go_on(segment: Segment) -> None:
    """It would change a pod's namespace while it believes itself on the node; no exception is safe against that."""
    program = """
import os, sys
from cni_underlay.datapath import netns
home = netns._home.descriptor()
def lose_the_way():
    os.close(home)
    os.dup2(os.open("/dev/null", os.O_RDONLY), home)
try:
    netns.inside(int(sys.argv[1]), lose_the_way)
except BaseException:
    pass
print("went on")
"""
    pod = segment.pod()
    done = subprocess.run(
        [sys.executable, "-c", program, str(pod.descriptor)],
        pass_fds=[pod.descriptor],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -6
    assert done.stdout == ""
    assert "cannot leave a pod's network namespace" in done.stderr


def test_a_forked_child_knows_its_own_namespace(segment: Segment) -> None:
    pod = segment.pod()
    assert not netns.is_own(pod.descriptor)
    child = os.fork()
    if child == 0:
        netns._setns(pod.descriptor, 0x40000000)
        os._exit(0 if netns.is_own(pod.descriptor) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_is_no_network_namespace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    for path in (str(tmp_path / "plain"), "/dev/null", "/proc/self/ns/uts", str(tmp_path)):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            assert not netns.is_netns(descriptor)
            with pytest.raises(InvalidNamespaceError, match="is not a network namespace"):
                netns.require_foreign(descriptor, path, overridden=True)
        finally:
            os.close(descriptor)


def test_a_closed_descriptor_is_refused() -> None:
    with pytest.raises(InvalidNamespaceError, match="not a namespace"):
        netns.inode(10_000)


def test_the_nodes_own_namespace_is_refused_unless_that_is_allowed(segment: Segment) -> None:
    pod = segment.pod()
    netns.require_foreign(pod.descriptor, pod.path, overridden=False)
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        with pytest.raises(InvalidNamespaceError, match="'/here' is the node's own"):
            netns.require_foreign(own, "/here", overridden=False)
        netns.require_foreign(own, "/here", overridden=True)
    finally:
        os.close(own)


def test_descriptors_do_not_grow_with_attachments(segment: Segment) -> None:
    node, pod = segment.node(2), segment.pod()

    wiring = values.wiring(20)
    node.datapath.create(wiring, pod.descriptor)
    node.datapath.delete(values.lease(wiring), pod.descriptor)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        node.datapath.create(wiring, pod.descriptor)
        node.datapath.delete(values.lease(wiring), pod.descriptor)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
