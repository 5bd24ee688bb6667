"""What the client asks: the request frame, for every shape of a call; and what it answers without anybody."""

import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from . import peer
from .peer import Peer
from .runner import Runner

LIMIT = 8 << 20
VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]


def encoded(pairs: dict[str, str]) -> dict[bytes, bytes]:
    return {key.encode(): value.encode() for key, value in pairs.items()}


@pytest.mark.parametrize("env", [{}, {"CNI_COMMAND": ""}], ids=["unset", "empty"])
def test_without_a_command_the_plugin_tells_what_it_is(client: Path, env: dict[str, str]) -> None:
    argv = ["/opt/cni/bin/underlay-ipam", "x"]
    done = subprocess.run(argv, executable=client, env=env, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"")
    first, second = done.stderr.decode().splitlines()
    assert first.startswith("CNI plugin underlay-ipam v")
    assert second == f"CNI protocol versions supported: {', '.join(VERSIONS)}"


def test_version_is_answered_while_nobody_listens_and_standard_input_stays_open(call: Runner) -> None:
    hostile = {"UNDERLAY_TIMEOUT": "never", "UNDERLAY_SOCKET": "x" * 4096, "CNI_NETNS": "dummy", "CNI_PATH": ""}
    with call.start("VERSION", hostile) as process:
        assert process.stdout
        assert process.wait(timeout=20) == 0
        assert json.loads(process.stdout.read()) == {"cniVersion": "1.1.0", "supportedVersions": VERSIONS}


def test_version_needs_no_standard_input(call: Runner) -> None:
    done = call("VERSION", prelude="exec 0<&-")
    assert (done.returncode, json.loads(done.stdout)["supportedVersions"]) == (0, VERSIONS)


def test_a_call_reaches_the_agent_untouched(call: Runner, agent: Peer) -> None:
    agent.start(peer.answer(0, b'{"a": 1}', b"a log line\n"))
    env = {"CNI_CONTAINERID": "c1", "CNI_ARGS": "A=B=C;;", "CNI_IFNAME": "", "TRACEPARENT": "00-1", "PATH": "/x"}
    body = b'\0\xff\xfe {"cniVersion":' + bytes(range(256))
    done = call("ADD", body, env, argv=("/opt/cni/bin/underlay", "ignored", "CNI_COMMAND=DEL"))
    assert (done.returncode, done.stdout, done.stderr) == (0, b'{"a": 1}', b"a log line\n")
    [request] = agent.requests
    assert (request.magic, request.kind, request.netns_errno, request.netns_inode) == (b"UNL1", 1, 0, None)
    assert request.body == body
    assert request.entries[0] == b"argv0=underlay"
    assert request.environment == encoded({"argv0": "underlay"} | call.environment("ADD", env))


@pytest.mark.parametrize(
    "command",
    ["DEL", "CHECK", "GC", "STATUS", "add", "ADDD", "VERSION ", "nonsense", pytest.param("x" * 99999, id="x")],
)
def test_any_other_command_is_the_agents_to_judge(call: Runner, agent: Peer, command: str) -> None:
    agent.start(peer.answer(3, b'{"code": 4}'))
    done = call(command)
    assert (done.returncode, done.stdout, done.stderr) == (3, b'{"code": 4}', b"")
    assert agent.requests[0].command == command.encode()


@pytest.mark.parametrize(
    ("argv0", "name"),
    [
        (b"underlay", b"underlay"),
        (b"/opt/cni/bin/underlay-ipam", b"underlay-ipam"),
        (b"./a b;$(c)\n", b"a b;$(c)\n"),
        (b"../\xff\xfe", b"\xff\xfe"),
        (b"/trailing/", b"underlay"),
        (b"", b"underlay"),
        pytest.param(b"n" * 99999, b"n" * 99999, id="long"),
    ],
)
def test_the_agent_learns_the_name_of_the_call(call: Runner, agent: Peer, argv0: bytes, name: bytes) -> None:
    agent.start(peer.answer())
    assert call("CHECK", argv=(argv0,)).returncode == 0
    assert agent.requests[0].entries[0] == b"argv0=" + name


def test_a_symbolic_link_lends_its_name(call: Runner, agent: Peer, client: Path, tmp_path: Path) -> None:
    agent.start(peer.answer())
    (tmp_path / "corp-net").symlink_to(client)
    subprocess.run([tmp_path / "corp-net"], env=call.environment("CHECK"), input=b"{}", check=True)
    assert agent.requests[0].entries[0] == b"argv0=corp-net"


def test_no_variable_can_pose_as_the_name_or_as_a_second_command(client: Path, agent: Peer) -> None:
    agent.start(peer.answer())
    socket = f"UNDERLAY_SOCKET={agent.path}"
    entries = ["argv0=evil", socket, "CNI_COMMAND=CHECK", "CNI_COMMAND=ADD", "no equals sign", "=x"]
    # execve(2) takes any strings for an environment, Python's subprocess only a dictionary.
    script = (
        "import ctypes, os, sys\n"
        "strings = lambda items: (ctypes.c_char_p * (len(items) + 1))(*map(os.fsencode, items), None)\n"
        "ctypes.CDLL(None).execve(os.fsencode(sys.argv[1]), strings(['underlay']), strings(sys.argv[2:]))\n"
    )
    subprocess.run([sys.executable, "-c", script, client, *entries], input=b"{}", check=True)
    assert agent.requests[0].entries == [b"argv0=underlay", b"CNI_COMMAND=CHECK", socket.encode()]


def test_the_namespace_goes_along_as_a_read_only_descriptor(call: Runner, agent: Peer) -> None:
    agent.start(peer.answer())
    assert call("ADD", env={"CNI_NETNS": "/proc/self/ns/net"}).returncode == 0
    [request] = agent.requests
    assert request.netns_inode == Path("/proc/self/ns/net").stat().st_ino
    assert request.netns_flags & os.O_ACCMODE == os.O_RDONLY
    assert request.netns_errno == 0


@pytest.mark.parametrize(("path", "errno"), [("/missing/net", 2), ("/etc/passwd/net", 20), ("n" * 300, 36), ("", 0)])
def test_a_namespace_that_cannot_be_opened_goes_along_as_its_errno(
    call: Runner, agent: Peer, path: str, errno: int
) -> None:
    agent.start(peer.answer())
    assert call("DEL", env={"CNI_NETNS": path}).returncode == 0
    [request] = agent.requests
    assert (request.netns_errno, request.netns_inode) == (errno, None)
    assert request.environment[b"CNI_NETNS"] == path.encode()


def test_a_fifo_in_place_of_the_namespace_does_not_block(call: Runner, agent: Peer, tmp_path: Path) -> None:
    agent.start(peer.answer())
    os.mkfifo(tmp_path / "fifo")
    assert call("ADD", env={"CNI_NETNS": str(tmp_path / "fifo")}).returncode == 0
    assert agent.requests[0].netns_inode == (tmp_path / "fifo").stat().st_ino


def test_8_mib_pass_in_both_directions_beside_the_namespace(call: Runner, agent: Peer) -> None:
    body, out, err = os.urandom(LIMIT), os.urandom(LIMIT), os.urandom(LIMIT)
    agent.start(peer.answer(7, out, err))
    done = call("ADD", body, {"CNI_NETNS": "/proc/self/ns/net"})
    assert (done.returncode, done.stdout == out, done.stderr == err) == (7, True, True)
    assert agent.requests[0].body == body
    assert agent.requests[0].netns_inode == Path("/proc/self/ns/net").stat().st_ino


def test_a_large_environment_passes(call: Runner, agent: Peer) -> None:
    agent.start(peer.answer())
    env = {f"CNI_LARGE_{number}": "v" * 100_000 for number in range(12)}
    assert call("ADD", env=env).returncode == 0
    assert agent.requests[0].environment == encoded({"argv0": "underlay"} | call.environment("ADD", env))


def test_one_byte_more_than_8_mib_is_refused_and_not_sent(call: Runner, agent: Peer) -> None:
    agent.start(peer.answer())
    error = call.failure("ADD", bytes(LIMIT + 1))
    assert error["code"] == 6
    assert "8388608 bytes (8 MiB)" in error["msg"]
    assert agent.requests == []


def test_an_endless_standard_input_is_refused(call: Runner) -> None:
    with Path("/dev/zero").open("rb") as endless:
        assert call.failure("DEL", stdin=endless)["code"] == 6


def test_a_file_and_a_null_device_are_standard_inputs_too(call: Runner, agent: Peer, tmp_path: Path) -> None:
    agent.start(peer.answer())
    (tmp_path / "conf").write_bytes(b'{"name": "x"}')
    with (tmp_path / "conf").open("rb") as file:
        assert call("ADD", stdin=file).returncode == 0
    assert call("ADD", stdin=subprocess.DEVNULL).returncode == 0
    assert [request.body for request in agent.requests] == [b'{"name": "x"}', b""]


def test_standard_input_that_trickles_in_is_put_together(call: Runner, agent: Peer) -> None:
    agent.start(peer.answer())
    numbers = [b"%d," % number for number in range(50)]
    with call.start("ADD") as process:
        assert process.stdin
        for number in numbers:
            process.stdin.write(number)
            process.stdin.flush()
        process.stdin.close()
        assert process.wait(timeout=20) == 0
    assert agent.requests[0].body == b"".join(numbers)


def test_pipes_that_somebody_made_non_blocking_work(call: Runner, agent: Peer) -> None:
    body, out = os.urandom(LIMIT), os.urandom(LIMIT)
    agent.start(peer.answer(0, out))
    read_end, write_end = os.pipe()
    out_read, out_write = os.pipe()
    os.set_blocking(read_end, False)
    os.set_blocking(out_write, False)
    with (
        os.fdopen(read_end, "rb") as stdin,
        os.fdopen(out_write, "wb") as stdout,
        call.start("CHECK", stdin=stdin, stdout=stdout) as process,
        ThreadPoolExecutor(1) as pool,
    ):
        stdin.close()
        stdout.close()
        with os.fdopen(out_read, "rb") as reader, os.fdopen(write_end, "wb") as writer:
            printed = pool.submit(reader.read)
            writer.write(body)
            writer.close()
            assert printed.result(timeout=20) == out
        assert process.wait(timeout=20) == 0
    assert agent.requests[0].body == body


def test_a_deleted_directory_few_descriptors_and_any_umask_do_not_matter(
    call: Runner, agent: Peer, tmp_path: Path
) -> None:
    agent.start(peer.answer(0, b"{}"))
    # Five descriptors: the standard ones, the namespace, the socket.
    prelude = f"mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir {tmp_path}/gone; umask 777; ulimit -n 5"
    done = call("ADD", env={"CNI_NETNS": "/proc/self/ns/net"}, prelude=prelude)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"{}", b"")
    assert agent.requests[0].netns_inode


def test_descriptors_are_closed_on_exec_and_no_more_are_open_than_needed(call: Runner, agent: Peer) -> None:
    agent.start(peer.wait)
    with call.start("CHECK", {"CNI_NETNS": "/proc/self/ns/net"}) as process:
        assert process.stdin
        process.stdin.write(b"{}")
        process.stdin.close()
        agent.arrived(1)
        folder = Path(f"/proc/{process.pid}")
        own = {link.name: str(link.readlink()) for link in (folder / "fd").iterdir() if int(link.name) > 2}
        flags = [int((folder / "fdinfo" / name).read_text().split("flags:")[1].split()[0], 8) for name in own]
        process.kill()
    assert sorted(target.split(":")[0] for target in own.values()) == ["net", "socket"]
    assert all(flag & os.O_CLOEXEC for flag in flags)


def test_many_calls_at_once_keep_their_answers_apart(call: Runner, agent: Peer) -> None:
    agent.start(lambda connection, request: connection.sendall(peer.frame(0, request.body * 100)))
    bodies = [b"%d;" % number for number in range(100)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda body: call("ADD", body), bodies))
    assert [done.stdout for done in answers] == [body * 100 for body in bodies]
    assert all(done.returncode == 0 for done in answers)


def test_the_binary_is_static_and_executable(client: Path) -> None:
    if "UNDERLAY_CLIENT" in os.environ:
        pytest.skip("another build is under test")
    assert stat.S_IMODE(client.stat().st_mode) == 0o755
    assert b"/ld-linux" not in client.read_bytes()  # the path of an ELF interpreter
