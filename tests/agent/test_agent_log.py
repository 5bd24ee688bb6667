"""The log: JSON lines, one for each request."""

import json
from typing import Any

from .bed.agent import Agent, await_true
from .bed.calls import Runtime
from .bed.node import Node, Pod

TRACE = f"00-{'a1' * 16}-{'b2' * 8}-01"


def requests(agent: Agent, count: int = 1) -> list[dict[str, Any]]:
    """The lines of requests, once there are so many: a line is written when its answer is on the way."""

    def lines() -> list[dict[str, Any]]:
        return [line for line in agent.log() if line["msg"] in ("served", "refused")]

    await_true(lambda: len(lines()) >= count, f"{count} requests in the log")
    return lines()


def test_each_request_has_one_line_with_who_what_and_how_long(agent: Agent, runtime: Runtime, pod: Pod) -> None:
    runtime.environment["TRACEPARENT"] = TRACE
    address = runtime.add(pod).address
    runtime.delete(pod)
    added, deleted = requests(agent, 2)
    assert added["level"] == "info"
    assert added["verb"] == "ADD"
    assert added["network"] == "net"
    assert added["container"] == pod.container
    assert added["ifname"] == "eth0"
    assert added["pod"] == f"shop/{pod.netns.name}"
    assert added["address"] == [address]
    assert added["traceparent"] == TRACE
    assert set(added["ms"]) == {"total", "decode", "lease", "wire", "flush"}
    assert all(value >= 0 for value in added["ms"].values())
    assert added["ms"]["total"] >= max(added["ms"]["lease"], added["ms"]["wire"])
    assert deleted["verb"] == "DEL"
    assert deleted["address"] == [address]
    assert {"unwire", "release"} <= set(deleted["ms"])


def test_a_refused_request_has_its_code_and_words(agent: Agent, runtime: Runtime, pod: Pod) -> None:
    outcome = runtime.add(pod, ipam={"type": "underlay-ipam", "pools": ["nowhere"]})
    (line,) = requests(agent)
    assert line["level"] == "warning"
    assert line["code"] == outcome.code == 7
    assert line["error"] == outcome.error["msg"]
    assert "address" not in line


def test_a_delegates_words_and_milliseconds_are_in_the_line(
    node: Node, agent: Agent, runtime: Runtime, pod: Pod
) -> None:
    node.write_plugin("chatty", ["echo careful >&2", 'echo \'{"code": 120, "msg": "no"}\'', "exit 1"])
    outcome = runtime.add(pod, cniVersion="1.0.0", ipam={"type": "chatty"})
    assert outcome.code == 120
    assert outcome.stderr.splitlines()[0] == b"careful"
    (line,) = requests(agent)
    assert line["warnings"][0] == "careful"
    assert line["ms"]["delegate"] > 0


def test_hostile_texts_stay_inside_their_line(node: Node, agent: Agent, runtime: Runtime, pod: Pod) -> None:
    runtime.environment["CNI_ARGS"] = (
        'IgnoreUnknown=1;K8S_POD_NAMESPACE=a"}\n{"verb":"forged;K8S_POD_NAME=\N{SNOWMAN}\x1b[2J\x7f\u2028'
    )
    runtime.environment["TRACEPARENT"] = "00-\n" + "x" * 100_000
    assert runtime.add(pod).status == 0
    (line,) = requests(agent)
    assert line["pod"].startswith('a"}\n{"verb":"forged/\N{SNOWMAN}')
    assert "traceparent" not in line
    last = agent.log_path.read_bytes().splitlines()[-1]
    assert len(last) < 2000
    assert last.isascii()  # no character that a terminal would obey
    assert b"\x1b" not in last


def test_bytes_that_are_not_utf8_leave_the_log_readable(agent: Agent, runtime: Runtime, pod: Pod) -> None:
    runtime.environment["CNI_ARGS"] = "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b\udcff\udc80"
    runtime.delete(pod)
    requests(agent)
    text = agent.log_path.read_bytes().decode("utf-8", "strict")
    assert json.loads(text.splitlines()[-1])["verb"] == "DEL"


def test_a_level_leaves_out_what_is_below_it(idle_agent: Agent, runtime: Runtime, pod: Pod) -> None:
    idle_agent.configure(log_level="error")
    idle_agent.start()
    assert runtime.add(pod).status == 0
    assert idle_agent.log() == []


def test_a_log_that_nobody_reads_does_not_end_the_agent(idle_agent: Agent, runtime: Runtime, pod: Pod) -> None:
    idle_agent.start("sh", "-c", 'exec "$@" 2>&-', "closed")
    assert runtime.add(pod).status == 0
    assert runtime.delete(pod).status == 0


def test_a_container_id_without_end_does_not_make_a_line_without_end(agent: Agent, runtime: Runtime, pod: Pod) -> None:
    runtime.environment["CNI_CONTAINERID"] = "a" * 100_000
    assert runtime.delete(pod).status == 0
    assert len(requests(agent)[0]["container"]) < 300
