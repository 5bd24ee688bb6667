"""DELs without an answer: kept on disk, whole, private and in order, and only those."""

import os
import re
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from . import peer
from .peer import Behaviour, Peer, Request
from .runner import Runner

Spooled = Callable[[], list[Request]]

NO_ANSWER: dict[str, Behaviour] = {
    "dropped": peer.drop,
    "broken off": peer.send(peer.frame(0, b"x")[:-1]),
    "not ours": peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "late": peer.wait,
}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_del_without_an_agent_succeeds_silently_and_is_kept(call: Runner, spool: Path, spooled: Spooled) -> None:
    before = time.time_ns()
    done = call("DEL", b'{"name": "net"}\0\xff', {"CNI_CONTAINERID": "c1", "CNI_NETNS": "/missing"})
    after = time.time_ns()
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    [request] = spooled()
    assert (request.kind, request.netns_errno) == (1, 2)
    assert request.body == b'{"name": "net"}\0\xff'
    assert request.environment[b"CNI_CONTAINERID"] == b"c1"
    [file] = spool.iterdir()
    stamp = re.fullmatch(r"(\d{20})-[1-9]\d*\.del", file.name)
    assert stamp
    assert before <= int(stamp[1]) <= after


def test_what_is_kept_is_the_frame_that_an_agent_would_have_got(call: Runner, agent: Peer, spooled: Spooled) -> None:
    agent.start(peer.answer())
    env = {"CNI_CONTAINERID": "c1", "CNI_NETNS": "/proc/self/ns/net", "OTHER": "x"}
    assert call("DEL", env=env).returncode == 0
    agent.stop()
    assert spooled() == []
    assert call("DEL", env=env).returncode == 0
    assert [request.frame for request in spooled()] == [request.frame for request in agent.requests]


@pytest.mark.parametrize("umask", ["000", "777"])
def test_the_spool_and_its_parents_are_private_whatever_the_umask(call: Runner, tmp_path: Path, umask: str) -> None:
    socket = tmp_path / "a" / "b" / "agent.sock"
    done = call("DEL", env={"UNDERLAY_SOCKET": str(socket)}, prelude=f"umask {umask}")
    assert done.returncode == 0
    spool = socket.with_name("spool")
    assert [mode(path) for path in (tmp_path / "a", socket.parent, spool)] == [0o700] * 3
    assert [mode(path) for path in spool.iterdir()] == [0o600]


def test_a_relative_socket_has_its_spool_beside_it(call: Runner, tmp_path: Path) -> None:
    for socket in ("agent.sock", "./sub/agent.sock"):
        prelude = f"mkdir -p {tmp_path}/w; cd {tmp_path}/w"
        assert call("DEL", env={"UNDERLAY_SOCKET": socket}, prelude=prelude).returncode == 0
    assert len(list((tmp_path / "w" / "spool").iterdir())) == 1
    assert len(list((tmp_path / "w" / "sub" / "spool").iterdir())) == 1


@pytest.mark.parametrize("behaviour", NO_ANSWER.values(), ids=NO_ANSWER.keys())
def test_a_del_whose_answer_does_not_come_is_kept(
    call: Runner, agent: Peer, spooled: Spooled, behaviour: Behaviour
) -> None:
    agent.start(behaviour)
    done = call("DEL", env={"UNDERLAY_TIMEOUT": "0.3"})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert [request.frame for request in spooled()] == [agent.requests[0].frame]


@pytest.mark.parametrize("status", [0, 1])
def test_a_del_that_was_answered_is_not_kept(call: Runner, agent: Peer, spool: Path, status: int) -> None:
    agent.start(peer.answer(status, b"{}"))
    assert call("DEL").returncode == status
    assert not spool.exists()


@pytest.mark.parametrize("command", ["ADD", "CHECK", "GC", "STATUS", "VERSION", "del", "DEL "])
def test_nothing_but_a_del_is_kept(call: Runner, spool: Path, command: str) -> None:
    call(command)
    assert not spool.exists()


def test_a_del_of_8_mib_is_kept_whole(call: Runner, spooled: Spooled) -> None:
    body = os.urandom(8 << 20)
    assert call("DEL", body).returncode == 0
    assert [request.body for request in spooled()] == [body]


def test_the_names_sort_by_time(call: Runner, spooled: Spooled) -> None:
    for number in range(5):
        assert call("DEL", b"%d" % number).returncode == 0
    assert [request.body for request in spooled()] == [b"0", b"1", b"2", b"3", b"4"]


def test_many_at_once_are_all_kept(call: Runner, spooled: Spooled) -> None:
    bodies = [b"%d" % number for number in range(100)]
    with ThreadPoolExecutor(16) as pool:
        assert all(done.returncode == 0 for done in pool.map(lambda body: call("DEL", body), bodies))
    assert {request.body for request in spooled()} == set(bodies)


def test_a_reader_never_sees_a_part_of_a_file(call: Runner, spool: Path, spooled: Spooled) -> None:
    """What is being written has another name: each look into the spool, at any moment, finds whole frames only."""
    body = os.urandom(2 << 20)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(call, "DEL", body) for _ in range(12)]
        while not all(running.done() for running in calls):
            for path in list(spool.glob("*.del")) if spool.exists() else []:
                assert peer.parse(path.read_bytes()).body == body
    assert all(running.result().returncode == 0 for running in calls)
    assert len(spooled()) == 12


def test_a_spool_that_cannot_be_made_fails_the_del_and_is_named(call: Runner, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = call.failure("DEL", env={"UNDERLAY_SOCKET": str(tmp_path / "file" / "agent.sock")})
    assert (error["code"], error["details"]) == (11, "ENOTDIR")
    assert f"cannot be kept in {tmp_path}/file/spool" in error["msg"]


def test_a_directory_that_was_deleted_cannot_have_a_spool(call: Runner, tmp_path: Path) -> None:
    prelude = f"mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir {tmp_path}/gone"
    error = call.failure("DEL", env={"UNDERLAY_SOCKET": "agent.sock"}, prelude=prelude)
    assert (error["code"], error["details"]) == (11, "ENOENT")


def test_a_spool_that_others_could_write_to_is_not_used(call: Runner, spool: Path) -> None:
    spool.mkdir(parents=True)
    spool.chmod(0o777)
    error = call.failure("DEL")
    assert (error["code"], error["details"]) == (11, "EPERM")
    assert list(spool.iterdir()) == []


def test_a_spool_of_somebody_else_is_not_used(call: Runner, spool: Path) -> None:
    spool.mkdir(parents=True)
    os.chown(spool, 65534, 65534)
    assert call.failure("DEL")["details"] == "EPERM"


def test_a_symbolic_link_in_place_of_the_spool_is_not_followed(call: Runner, spool: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    spool.parent.mkdir(parents=True)
    spool.symlink_to(tmp_path / "elsewhere")
    assert call.failure("DEL")["code"] == 11
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_limit_on_the_size_of_files_is_reported(call: Runner, spool: Path) -> None:
    error = call.failure("DEL", bytes(1 << 20), prelude="ulimit -f 8")
    assert (error["code"], error["details"]) == (11, "EFBIG")
    assert list(spool.iterdir()) == []


def test_a_full_disk_fails_the_del_and_leaves_no_part_of_it(call: Runner, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "left").touch()
    # A file system of 64 KiB in a mount namespace that ends with the client; what is left is listed before it does.
    script = f"""
        mount --make-rprivate / ; mount -t tmpfs -o size=64k tmpfs {disk}
        "$0"; status=$?; find {disk} -type f > {tmp_path}/left; exit $status
    """
    prelude = f"exec unshare --mount sh -c '{script}' \"$0\""
    error = call.failure("DEL", bytes(1 << 20), {"UNDERLAY_SOCKET": str(disk / "agent.sock")}, prelude=prelude)
    assert (error["code"], error["details"]) == (11, "ENOSPC")
    assert str(disk / "spool") in error["msg"]
    assert (tmp_path / "left").read_text() == ""
