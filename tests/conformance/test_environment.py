"""SPEC 1: the CNI_ variables, and the little else that a runtime gives its plugins."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .bed.calls import Caller
from .bed.netns import Pod
from .bed.network import Network, network_conf, own_interface
from .bed.network import inline as ranges
from .bed.node import Node

spec = pytest.mark.spec

CONF = network_conf("environment", datapath="veth", version="1.1.0", ipam=ranges())
REQUIRED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
}
LONGEST_NAME = 15

BAD_IDS: tuple[str | bytes, ...] = (
    *("-a", ".a", "_a", "a b", "a/b", "../a", "a:b", "a;b", "a\n", "\na", "a\t", "a'b", "a%b", "a*", "a@b", " ", "/"),
    *("ä", "aä", "a\u0660", "\uff21", "a\u2028", b"a\xff", b"\xff"),
)
BAD_NAMES: tuple[str | bytes, ...] = (
    *("a" * (LONGEST_NAME + 1), "ä" * 8, "a" * 300, ".", "..", "a/b", "/", "a:b", ":", "a b", " a", "a\t", "a\n"),
    *("a\x0b", "a\u00a0b", "a\u0085b", "a\u2003b", "a\u3000", b"a\xff"),
)
GOOD_NAMES = ("a", "0", "e" * LONGEST_NAME, "net1", "eth0.5", "a-b_c", "äöü", "é" * 7, "eth-1")
TRAPS = ("all", "default", "lo", "eth%d", "%d", "e%", "%s%n")


EACH_REQUIRED = [(verb, name) for verb, names in REQUIRED.items() for name in names]


@spec("E-1", "E-2")
@pytest.mark.parametrize("value", ["", None], ids=["empty", "unset"])
@pytest.mark.parametrize(("verb", "name"), EACH_REQUIRED)
@pytest.mark.usefixtures("unchanged")
def test_a_required_variable_that_is_empty_or_unset_is_named(
    node: Node, pod: Pod, verb: str, name: str, value: str | None
) -> None:
    outcome = node.call(pod, verb, CONF, env={name: value})
    message = outcome.refuse(4)["msg"]
    assert name in message
    assert [other for other in REQUIRED[verb] if other != name and other in message] == []


@spec("E-2")
@pytest.mark.parametrize("verb", REQUIRED)
def test_all_missing_variables_are_named_together(cni: Caller, verb: str) -> None:
    message = cni(verb, CONF, env=dict.fromkeys(REQUIRED[verb])).refuse(4)["msg"]
    assert all(name in message for name in REQUIRED[verb])


@spec("E-3")
@pytest.mark.parametrize("path", [None, "", ":::", "/nowhere:/dev/null"])
def test_nothing_but_a_delegate_needs_a_path(network: Callable[..., Network], pod: Pod, path: str | None) -> None:
    own = network()
    env = {"CNI_PATH": path}
    own.add(pod, env=env).succeed()
    own.check(pod, env=env).succeed()
    own.status().succeed()
    own.delete(pod, env=env).succeed()


@spec("E-4")
@pytest.mark.parametrize("verb", ["add", "Add", "ADD ", " ADD", "ADDED", "CREATE", "del", "version", "ADD\n", "\x01"])
@pytest.mark.usefixtures("unchanged")
def test_an_unknown_command_is_an_error_that_repeats_it(node: Node, pod: Pod, verb: str) -> None:
    error = node.call(pod, verb, CONF).refuse(4)
    assert verb in error["msg"]


@spec("E-5")
@pytest.mark.parametrize("plugin", ["underlay", "underlay-ipam"])
@pytest.mark.parametrize("value", ["", None], ids=["empty", "unset"])
def test_without_a_command_the_plugin_says_what_it_is(cni: Caller, plugin: str, value: str | None) -> None:
    outcome = cni("", b"", env={"CNI_COMMAND": value}, plugin=plugin)
    assert outcome.status == 0
    assert outcome.stdout == b""
    text = outcome.stderr.decode()
    assert f"CNI plugin {plugin} v" in text
    assert "0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0" in text


@spec("E-6")
@pytest.mark.parametrize("container", BAD_IDS, ids=ascii)
@pytest.mark.parametrize("verb", REQUIRED)
def test_a_malformed_container_id_is_refused_and_shown(
    node: Node, pods: Callable[[], Pod], verb: str, container: str | bytes
) -> None:
    pod = pods()
    env = {"CNI_CONTAINERID": container}
    error = node.cni(verb, CONF, netns=pod.path, ifname="eth0", env=env).refuse(4)
    assert "invalid characters in containerID" in error["msg"]
    shown = container.decode("utf-8", "replace") if isinstance(container, bytes) else container
    assert error["details"].rstrip("\ufffd") == shown.rstrip("\ufffd")
    assert node.leases() == []
    assert pod.links() == {"lo"}


@spec("E-6")
@pytest.mark.parametrize("container", ["a", "0", "Z", "A_b.c-d", "0-", "a..", "k8s_POD_x-y_z"])
def test_every_allowed_container_id_is_taken(network: Callable[..., Network], pod: Pod, container: str) -> None:
    own = network()
    own.add(pod, container=container).succeed()
    assert [lease["container_id"] for lease in own.leases()] == [container]
    own.check(pod, container=container).succeed()
    own.delete(pod, container=container).succeed()
    assert own.leases() == []


@spec("E-7")
@pytest.mark.parametrize("length", [253, 4000])
def test_a_container_id_has_no_longest_length(
    network: Callable[..., Network], pod: Pod, datapath: str, length: int
) -> None:
    own = network(datapath=datapath)
    container = "a" * length
    own.add(pod, container=container).succeed()
    own.check(pod, container=container).succeed()
    own.delete(pod, container=container).succeed()
    assert own.leases() == []


@spec("E-8")
@pytest.mark.parametrize("ifname", BAD_NAMES, ids=ascii)
@pytest.mark.parametrize("verb", REQUIRED)
def test_a_malformed_interface_name_is_refused(
    node: Node, pods: Callable[[], Pod], verb: str, ifname: str | bytes
) -> None:
    pod = pods()
    error = node.cni(verb, CONF, container=pod.container, netns=pod.path, env={"CNI_IFNAME": ifname}).refuse(4)
    assert "CNI_IFNAME" in error["msg"]
    assert node.leases() == []
    assert pod.links() == {"lo"}


@spec("E-8", "E-10")
@pytest.mark.parametrize("ifname", GOOD_NAMES)
def test_an_allowed_interface_name_is_used_to_the_letter(
    network: Callable[..., Network], pod: Pod, datapath: str, ifname: str
) -> None:
    own = network(datapath=datapath)
    result = own.add(pod, ifname=ifname).result
    assert own_interface(result, ifname)["name"] == ifname
    assert pod.links() == {"lo", ifname}
    own.check(pod, ifname=ifname).succeed()
    own.delete(pod, ifname=ifname).succeed()
    assert pod.links() == {"lo"}


@spec("E-9", "E-10")
@pytest.mark.parametrize("ifname", TRAPS)
@pytest.mark.usefixtures("unchanged")
def test_a_name_that_the_kernel_treats_specially_is_refused_and_leaves_nothing(
    cni: Caller, pod: Pod, datapath: str, ifname: str
) -> None:
    conf = CONF | {"datapath": datapath}
    call = {"container": pod.container, "netns": pod.path, "ifname": ifname}
    cni("ADD", conf, **call).refuse(4, 7, 102)
    cni("DEL", conf, **call).succeed()


@spec("E-11")
@pytest.mark.parametrize(
    ("env", "stdin", "code"),
    [
        ({"CNI_CONTAINERID": "-", "CNI_NETNS": ""}, b"{", 4),
        ({"CNI_CONTAINERID": ""}, b"{", 4),
        ({"CNI_IFNAME": "a/b"}, b"", 4),
        ({}, b'{"cniVersion": "9.9.9", "name": "n"', 6),
        ({}, b'{"cniVersion": "9.9.9"}', 7),
        ({}, b'{"cniVersion": "9.9.9", "name": "n", "type": "underlay"}', 1),
    ],
    ids=["id before json", "missing before json", "name before json", "json", "name before version", "version"],
)
def test_of_several_faults_the_first_in_the_librarys_order_is_told(
    node: Node, pod: Pod, env: dict[str, str | bytes | None], stdin: bytes, code: int
) -> None:
    node.call(pod, "ADD", stdin, env=env).refuse(code)


@spec("E-12")
@pytest.mark.parametrize("verb", ["GC", "STATUS"])
@pytest.mark.parametrize("value", [None, "", "dummy", "../../x", "a b", "/dev/null", b"\xff", "x" * 300], ids=ascii)
def test_collecting_and_status_look_at_no_attachment(
    network: Callable[..., Network], verb: str, value: str | bytes | None
) -> None:
    own = network()
    env = dict.fromkeys(("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"), value)
    own.call(verb, None, env=env, extra={"cni.dev/valid-attachments": []}).succeed()


@spec("E-13", "R-3")
@pytest.mark.parametrize("kind", ["bind mount", "through /var/run", "symbolic link", "process"])
def test_every_path_to_a_namespace_serves_and_is_repeated_verbatim(
    network: Callable[..., Network], pod: Pod, tmp_path: Path, kind: str
) -> None:
    link = tmp_path / "link"
    link.symlink_to(pod.path)
    holder = pod.spawn(["/bin/sleep", "infinity"])
    paths = {
        "bind mount": pod.path,
        "through /var/run": f"/var{pod.path}",
        "symbolic link": str(link),
        "process": f"/proc/{holder.pid}/ns/net",
    }
    try:
        own = network()
        result = own.add(pod, netns=paths[kind]).result
        assert own_interface(result)["sandbox"] == paths[kind]
        assert "eth0" in pod.links()
        own.check(pod, netns=paths[kind]).succeed()
        own.delete(pod, netns=paths[kind]).succeed()
        assert pod.links() == {"lo"}
    finally:
        holder.kill()
        holder.wait()


@pytest.fixture
def odd_paths(tmp_path: Path) -> dict[str, str]:
    """What CNI_NETNS should not be."""
    plain, fifo = tmp_path / "plain", tmp_path / "fifo"
    plain.touch()
    os.mkfifo(fifo)
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    return {
        "missing": str(tmp_path / "gone"),
        "dangling link": str(tmp_path / "dangling"),
        "plain file": str(plain),
        "directory": str(tmp_path),
        "fifo": str(fifo),
        "device": "/dev/null",
        "mount namespace": "/proc/self/ns/mnt",
        "uts namespace": "/proc/self/ns/uts",
        "too long": "/x" * 3000,
        "relative": "no/such/thing",
        "below a file": str(plain / "net"),
    }


@spec("E-14", "A-2")
@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
@pytest.mark.parametrize(
    "kind",
    [
        *("missing", "dangling link", "plain file", "directory", "fifo", "device"),
        *("mount namespace", "uts namespace", "too long", "relative", "below a file"),
    ],
)
@pytest.mark.usefixtures("unchanged")
def test_what_is_no_network_namespace_is_refused(
    cni: Caller, pod: Pod, datapath: str, odd_paths: dict[str, str], verb: str, kind: str
) -> None:
    conf = CONF | {"datapath": datapath}
    if verb == "CHECK":
        conf["prevResult"] = {
            "cniVersion": "1.1.0",
            "interfaces": [{"name": "eth0", "sandbox": odd_paths[kind]}],
            "ips": [],
        }
    outcome = cni(verb, conf, container=pod.container, netns=odd_paths[kind], ifname="eth0")
    assert outcome.code not in (1, 2, 3, 5, 6, 50, 51)


@spec("E-15")
@pytest.mark.parametrize("ifname", ["eth0", "mine"])
@pytest.mark.usefixtures("unchanged")
def test_the_nodes_own_namespace_is_refused(node: Node, datapath: str, ifname: str) -> None:
    conf = CONF | {"datapath": datapath}
    call = {"container": "own", "netns": node.host.path, "ifname": ifname}
    node.cni("ADD", conf, **call).refuse(8)
    node.cni("DEL", conf, **call).succeed()
    assert "eth0" in node.host.links()


@spec("E-15")
@pytest.mark.parametrize("value", ["true", "TRUE", "1"])
def test_the_nodes_own_namespace_is_allowed_by_the_librarys_override(
    network: Callable[..., Network], node: Node, value: str
) -> None:
    own = network()
    env = {"CNI_NETNS_OVERRIDE": value}
    outcome = own.add(None, container="own", netns=node.host.path, ifname="mine", env=env)
    assert outcome.status == 0 or outcome.code != 8
    own.delete(None, container="own", netns=node.host.path, ifname="mine", env=env).succeed()


@spec("E-16", "K-3")
@pytest.mark.parametrize(
    "args",
    [
        "",
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=abc;K8S_POD_UID=1-2",
        "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID=1-2;IgnoreUnknown=1",
        "K8S_POD_NAME=web-0;IgnoreUnknown=true;FOO=bar",
        "IgnoreUnknown=TRUE;FOO=bar",
        "IgnoreUnknown=0;K8S_POD_NAME=web-0",
        "FOO=bar",
        "K8S_POD_NAME=",
    ],
)
def test_args_of_runtimes_pass_whatever_their_order(network: Callable[..., Network], pod: Pod, args: str) -> None:
    own = network()
    own.add(pod, args=args).succeed()
    (lease,) = own.leases()
    assert lease["pod"]["name"] == ("web-0" if "web-0" in args else "")
    own.check(pod, args=args).succeed()
    own.delete(pod, args=args).succeed()


@spec("E-17")
@pytest.mark.parametrize(
    "args", [";", "=", "A", "A=B=C", ";;", "A=;B", "=B", b"A=\xff", "IP=", "MAC=", "\n", "A" * 99999]
)
@pytest.mark.usefixtures("unchanged")
def test_malformed_args_never_keep_a_container_alive(node: Node, pod: Pod, args: str | bytes) -> None:
    conf = CONF | {"name": "malformed"}
    call = {"container": pod.container, "netns": pod.path, "ifname": "eth0", "env": {"CNI_ARGS": args}}
    outcome = node.cni("ADD", conf, **call)
    if outcome.status != 0:
        outcome.refuse(4)
        assert node.leases("malformed") == []
        assert pod.links() == {"lo"}
    node.cni("DEL", conf, **call).succeed()


@spec("E-18")
def test_foreign_variables_do_no_harm(network: Callable[..., Network], pod: Pod) -> None:
    own = network()
    env: dict[str, str | bytes | None] = {
        "TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "TRACESTATE": "a=b",
        "BAGGAGE": "c=d",
        "NOTIFY_SOCKET": "/nowhere",
        "LD_LIBRARY_PATH": "/nowhere",
        "PYTHONPATH": "/nowhere",
        "PYTHONHOME": "/nowhere",
        "LC_ALL": "xx_YY.broken",
        "TZ": "nowhere",
        "ODD": b"\xff\xfe",
        "NEWLINE": "a\nCNI_IFNAME=evil",
        "argv0": "underlay-ipam",
    }
    own.add(pod, env=env).succeed()
    assert pod.links() == {"lo", "eth0"}
    own.check(pod, env=env).succeed()
    own.delete(pod, env=env).succeed()


@spec("E-20")
@pytest.mark.parametrize("place", [Path.symlink_to, shutil.copy2], ids=["link", "copy"])
def test_the_plugin_may_be_installed_under_another_name(
    network: Callable[..., Network], node: Node, pod: Pod, place: Callable[..., object]
) -> None:
    name = "other.name-1"
    other = node.directory / "bin" / name
    binary = node.directory / "bin" / "underlay"
    place(other, binary) if place is Path.symlink_to else place(binary, other)
    try:
        own = network(type=name, plugin=name)
        own.add(pod).succeed()
        assert pod.links() == {"lo", "eth0"}
        own.check(pod).succeed()
        own.delete(pod).succeed()
        assert pod.links() == {"lo"}
    finally:
        other.unlink()


@spec("E-19")
@pytest.mark.parametrize("directory", ["deleted", "unreadable"])
def test_the_working_directory_does_not_matter(
    network: Callable[..., Network], pod: Pod, tmp_path: Path, directory: str
) -> None:
    def leave() -> None:
        where = tmp_path / directory
        where.mkdir()
        os.chdir(where)
        if directory == "deleted":
            where.rmdir()
        else:
            where.chmod(0)

    own = network()
    own.add(pod, cwd=None, preexec_fn=leave).succeed()
    own.delete(pod).succeed()
