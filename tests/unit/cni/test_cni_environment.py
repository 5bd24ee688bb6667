from collections.abc import Callable
from ipaddress import ip_address

import pytest

from cni_underlay.cni.environment import Verb, parse_call
from cni_underlay.errors import InvalidEnvironmentError
from cni_underlay.records import Pod

Make = Callable[..., dict[str, str]]

NO_BREAK_SPACE = "\u00a0"
NEXT_LINE = "\u0085"


def test_a_call_holds_what_the_runtime_set_and_the_namespace_verbatim(environment: Make) -> None:
    call = parse_call(environment(CNI_NETNS="/var/run/../run/netns/cni-1"))
    assert (call.verb, call.container_id, call.ifname, call.plugin) == (Verb.ADD, "3c91a7", "eth0", "underlay")
    assert call.netns == "/var/run/../run/netns/cni-1"
    assert call.path == ("/opt/cni/bin", "/usr/lib/cni")


def test_the_whole_environment_is_kept_for_delegates(environment: Make) -> None:
    variables = environment(TRACEPARENT="00-ab-cd-01", SOMETHING="else")
    assert parse_call(variables).environment == variables


@pytest.mark.parametrize("absent", [None, ""], ids=["unset", "empty"])
@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
def test_every_missing_variable_is_named(environment: Make, verb: str, absent: str | None) -> None:
    with pytest.raises(InvalidEnvironmentError) as caught:
        parse_call(environment(verb, CNI_CONTAINERID=absent, CNI_NETNS=absent, CNI_IFNAME=absent))
    assert caught.value.code == 4
    assert str(caught.value) == "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME] missing"


@pytest.mark.parametrize("absent", [None, ""], ids=["unset", "empty"])
def test_a_del_needs_no_namespace(environment: Make, absent: str | None) -> None:
    assert parse_call(environment("DEL", CNI_NETNS=absent)).netns == ""
    with pytest.raises(InvalidEnvironmentError, match=r"\[CNI_CONTAINERID,CNI_IFNAME\]"):
        parse_call(environment("DEL", CNI_CONTAINERID=absent, CNI_IFNAME=absent))


@pytest.mark.parametrize("verb", list(Verb))
@pytest.mark.parametrize("absent", [None, ""], ids=["unset", "empty"])
def test_a_missing_cni_path_is_accepted(environment: Make, verb: Verb, absent: str | None) -> None:
    assert parse_call(environment(verb.value, CNI_PATH=absent)).path == ()


def test_empty_elements_of_cni_path_are_dropped(environment: Make) -> None:
    assert parse_call(environment(CNI_PATH=":/a::/b:")).path == ("/a", "/b")


@pytest.mark.parametrize("command", ["add", "Add", "ADD ", "GET", "UPDATE", "0", "\udcff"])
def test_an_unknown_command_is_named_and_never_a_no_op(environment: Make, command: str) -> None:
    with pytest.raises(InvalidEnvironmentError, match="unknown CNI_COMMAND: ") as caught:
        parse_call(environment(command))
    assert command in str(caught.value)


@pytest.mark.parametrize("absent", [None, ""], ids=["unset", "empty"])
def test_no_command_at_all_is_a_missing_variable(environment: Make, absent: str | None) -> None:
    with pytest.raises(InvalidEnvironmentError, match=r"\[CNI_COMMAND\] missing"):
        parse_call(environment(CNI_COMMAND=absent))


@pytest.mark.parametrize("container_id", ["a", "0", "A.b_c-d", "a" * 253, "1-", "f" * 4096])
def test_a_good_container_id_has_no_length_limit(environment: Make, container_id: str) -> None:
    assert parse_call(environment(CNI_CONTAINERID=container_id)).container_id == container_id


@pytest.mark.parametrize(
    "container_id",
    [
        "_a",
        "-a",
        ".a",
        "a\n",
        "a b",
        "a/b",
        "../a",
        "é",
        "a\u0663",
        "a\udcff",
        "a:b",
        " a",
        "a\0",
        "a" + NO_BREAK_SPACE,
    ],
)
@pytest.mark.parametrize("verb", ["ADD", "CHECK", "DEL"])
def test_a_bad_container_id_is_refused_and_shown(environment: Make, verb: str, container_id: str) -> None:
    with pytest.raises(InvalidEnvironmentError, match="invalid characters in containerID") as caught:
        parse_call(environment(verb, CNI_CONTAINERID=container_id))
    assert caught.value.details == container_id


@pytest.mark.parametrize("ifname", ["e", "eth0", "a" * 15, "é" * 7, "eth0.120", "net-1", "a@b"])
def test_a_good_interface_name_is_counted_in_bytes(environment: Make, ifname: str) -> None:
    assert parse_call(environment(CNI_IFNAME=ifname)).ifname == ifname


@pytest.mark.parametrize(
    "ifname",
    [
        "a" * 16,
        "é" * 8,
        ".",
        "..",
        "a/b",
        "a:b",
        "a b",
        "a\t",
        "eth0\n",
        "a" + NO_BREAK_SPACE,
        "a" + NEXT_LINE,
        "à",
        "e\udcff",
        "e\0",
    ],
)
@pytest.mark.parametrize("verb", ["ADD", "CHECK", "DEL"])
def test_a_name_that_no_link_can_have_is_refused_for_every_verb(environment: Make, verb: str, ifname: str) -> None:
    with pytest.raises(InvalidEnvironmentError, match=r"^CNI_IFNAME: "):
        parse_call(environment(verb, CNI_IFNAME=ifname))


@pytest.mark.parametrize("ifname", ["all", "default", "lo", "eth%d", "%", "a\x01", "a\x7f", "a\u200b"])
def test_a_name_that_the_kernel_would_not_take_literally_is_refused_by_add_and_harmless_for_del(
    environment: Make, ifname: str
) -> None:
    for verb in ("ADD", "CHECK"):
        with pytest.raises(InvalidEnvironmentError, match=r"^CNI_IFNAME: "):
            parse_call(environment(verb, CNI_IFNAME=ifname))
    assert parse_call(environment("DEL", CNI_IFNAME=ifname)).ifname == ifname


def test_a_bad_value_is_reported_before_missing_ones(environment: Make) -> None:
    with pytest.raises(InvalidEnvironmentError, match="CNI_IFNAME"):
        parse_call(environment(CNI_CONTAINERID=None, CNI_IFNAME="a/b"))


@pytest.mark.parametrize("verb", ["GC", "STATUS", "VERSION"])
@pytest.mark.parametrize("value", ["", "dummy", "!", "a/b", "\udcff"])
def test_other_variables_do_not_matter_where_no_attachment_is_meant(environment: Make, verb: str, value: str) -> None:
    call = parse_call(environment(verb, CNI_CONTAINERID=value, CNI_NETNS=value, CNI_IFNAME=value, CNI_ARGS=value))
    assert (call.container_id, call.netns, call.ifname, call.args.pairs) == ("", "", "", ())


def test_version_needs_its_command_only() -> None:
    assert parse_call({"CNI_COMMAND": "VERSION"}).verb is Verb.VERSION


def test_a_namespace_that_json_cannot_repeat_is_refused_by_add_and_not_by_del(environment: Make) -> None:
    with pytest.raises(InvalidEnvironmentError, match="CNI_NETNS"):
        parse_call(environment(CNI_NETNS="/run/\udcff"))
    assert parse_call(environment("DEL", CNI_NETNS="/run/\udcff")).netns == "/run/\udcff"


@pytest.mark.parametrize("argv0", ["underlay", "./underlay", "/a/b/underlay"])
def test_the_plugin_is_known_by_its_file_name(environment: Make, argv0: str) -> None:
    assert parse_call(environment(argv0=argv0)).plugin == "underlay"


@pytest.mark.parametrize(
    "text",
    [
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=3c;K8S_POD_UID=77",
        "K8S_POD_UID=77;K8S_POD_NAME=web-0;FOO=bar;K8S_POD_NAMESPACE=shop;IgnoreUnknown=true",
        "K8S_POD_NAMESPACE=shop;;K8S_POD_NAME=web-0;K8S_POD_UID=77;",
        "K8S_POD_NAME=old;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=77;IgnoreUnknown=perhaps",
    ],
    ids=["containerd", "another-order", "empty-items", "twice"],
)
@pytest.mark.parametrize("verb", ["ADD", "CHECK", "DEL"])
def test_the_pod_is_found_in_any_order_and_unknown_keys_do_no_harm(environment: Make, verb: str, text: str) -> None:
    assert parse_call(environment(verb, CNI_ARGS=text)).args.pod == Pod(namespace="shop", name="web-0", uid="77")


@pytest.mark.parametrize("text", [None, "", ";", ";;"])
def test_no_arguments_are_fine(environment: Make, text: str | None) -> None:
    args = parse_call(environment(CNI_ARGS=text)).args
    assert (args.pairs, args.pod, args.ip, args.mac) == ((), Pod(), (), "")


@pytest.mark.parametrize("text", ["=", "A", "A=B=C", "=B", "K8S_POD_NAME=web-0;B", "A=\udcff", " "])
def test_malformed_arguments_fail_add_and_check_and_never_del(environment: Make, text: str) -> None:
    for verb in ("ADD", "CHECK"):
        with pytest.raises(InvalidEnvironmentError, match=r"^CNI_ARGS: "):
            parse_call(environment(verb, CNI_ARGS=text))
    parse_call(environment("DEL", CNI_ARGS=text))


def test_a_del_takes_from_malformed_arguments_what_is_legible(environment: Make) -> None:
    args = parse_call(environment("DEL", CNI_ARGS="A;=;K8S_POD_NAME=web\udcff;B=C=D")).args
    assert args.pod.name == "web\ufffd"
    assert args.get("B") == "C=D"


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("10.1.0.5", ["10.1.0.5"]),
        ("10.1.0.5/24", ["10.1.0.5"]),
        ("10.1.0.5,2001:db8::5", ["10.1.0.5", "2001:db8::5"]),
        ("10.1.0.5/24, 2001:DB8::5/64", ["10.1.0.5", "2001:db8::5"]),
        ("::ffff:10.1.0.5", ["10.1.0.5"]),
        ("", []),
    ],
)
def test_an_address_is_requested_with_or_without_prefix(environment: Make, text: str, addresses: list[str]) -> None:
    args = parse_call(environment(CNI_ARGS=f"IgnoreUnknown=1;IP={text}")).args
    assert args.ip == tuple(map(ip_address, addresses))


@pytest.mark.parametrize(
    "text", ["nonsense", "10.1.0", "10.1.0.256", "10.1.0.5/33", "fe80::1%eth0", "10.1.0.5/x", "010.1.0.5"]
)
def test_a_requested_address_that_is_none_is_refused_when_it_is_needed(environment: Make, text: str) -> None:
    args = parse_call(environment(CNI_ARGS=f"IP={text}")).args
    with pytest.raises(InvalidEnvironmentError, match=r"^CNI_ARGS: IP: "):
        assert args.ip


@pytest.mark.parametrize("text", ["C2:11:22:33:44:55", "c2-11-22-33-44-55"])
def test_a_requested_mac_is_brought_to_its_normal_form(environment: Make, text: str) -> None:
    assert parse_call(environment(CNI_ARGS=f"MAC={text}")).args.mac == "c2:11:22:33:44:55"


@pytest.mark.parametrize(
    "text",
    [
        "c2:11:22:33:44",
        "c2:11:22:33:44:55:66:77",
        "01:00:5e:00:00:01",
        "ff:ff:ff:ff:ff:ff",
        "00:00:00:00:00:00",
        "c21122334455",
        "c2:11:22-33:44:55",
        "c2:11:22:33:44:5g",
        "c2:11:22:33:44:55 ",
        "c2:11:22:33:44:5\u0663",
    ],
)
def test_a_requested_mac_that_no_interface_can_have_is_refused(environment: Make, text: str) -> None:
    args = parse_call(environment(CNI_ARGS=f"MAC={text}")).args
    with pytest.raises(InvalidEnvironmentError, match=r"^CNI_ARGS: MAC: "):
        assert args.mac
