"""What an agent does at its start about whatever the last one left."""

import json
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from ipaddress import ip_address

import pytest

from cni_underlay.agent.clock import Clock
from cni_underlay.ipam.pools import pools_from_documents
from cni_underlay.records import Attachment, Claim, DatapathKind
from cni_underlay.store.sqlite import SQLiteStore

from .bed.agent import Agent, await_true
from .bed.calls import Runtime, finish, hanging
from .bed.node import POOLS, Node, Pod, read_batch

# Mounts the file that stands first in its arguments over the boot id, for the rest of them alone.
OTHER_BOOT = 'mount --bind "$1" /proc/sys/kernel/random/boot_id; shift; exec "$@"'
DATAPATHS = pytest.mark.parametrize("datapath", ["veth", "macvlan"])


def start_after_reboot(agent: Agent) -> None:
    boot_id = agent.node.directory / "boot_id"
    boot_id.write_text("11111111-2222-3333-4444-555555555555\n")
    agent.start("unshare", "-m", "sh", "-ec", OTHER_BOOT, "boot", str(boot_id))


def forget_marks(node: Node) -> None:
    """As if the agent had been killed before it noted that its ADDs were complete."""
    with closing(sqlite3.connect(node.ledger)) as ledger:
        ledger.execute("UPDATE lease SET attached = 0")
        ledger.commit()


def recovered(agent: Agent) -> dict[str, object]:
    return agent.log("recovered")[-1]


@DATAPATHS
def test_leases_of_another_boot_go_to_quarantine(node: Node, agent: Agent, runtime: Runtime, datapath: str) -> None:
    before = node.kernel()
    runtime.conf["datapath"] = datapath
    pods = [node.make_pod() for _ in range(3)]
    addresses = [runtime.add(pod).address for pod in pods]
    agent.kill()
    for pod in list(pods):
        node.remove_pod(pod)  # nothing of a namespace outlives a reboot
    start_after_reboot(agent)
    assert recovered(agent)["other_boot"] == 3
    assert agent.leases() == []
    (usage,) = agent.ask("pools")
    assert usage["quarantined"] == 3
    assert agent.ask("history", address=addresses[0])[-1]["reason"] == "another boot"
    assert runtime.add(node.make_pod()).address not in addresses
    assert runtime.delete(node.pods[0]).status == 0
    await_true(lambda: node.kernel() == before, "nothing of them is left on the node")


def test_a_del_that_comes_after_the_reboot_succeeds(node: Node, agent: Agent, runtime: Runtime, pod: Pod) -> None:
    runtime.add(pod)
    agent.kill()
    start_after_reboot(agent)
    assert runtime.delete(pod).status == 0


@DATAPATHS
def test_an_add_that_had_been_complete_stands_and_its_repetition_gets_the_same_answer(
    node: Node, agent: Agent, runtime: Runtime, pod: Pod, datapath: str
) -> None:
    runtime.conf["datapath"] = datapath
    first = runtime.add(pod).result
    agent.kill()
    forget_marks(node)
    before = node.kernel()
    agent.start()
    assert recovered(agent)["completed"] == 1
    assert node.kernel() == before
    assert runtime.add(pod).result == first
    assert runtime("CHECK", pod, prevResult=first).status == 0


def test_a_repetition_after_a_crash_is_answered_for_a_delegate_too(
    node: Node, agent: Agent, runtime: Runtime, pod: Pod
) -> None:
    given = {
        "cniVersion": "1.0.0",
        "ips": [{"address": "10.78.0.9/24", "gateway": "10.78.0.1"}],
        "routes": [{"dst": "192.0.2.0/24", "gw": "10.78.0.1"}],
        "dns": {"nameservers": ["10.78.0.53"]},
    }
    node.write_plugin("giver", [f"[ $CNI_COMMAND = ADD ] && echo '{json.dumps(given)}'", "exit 0"])
    delegated = {"cniVersion": "1.0.0", "ipam": {"type": "giver"}}
    first = runtime.add(pod, **delegated).result
    assert first["dns"] == {"nameservers": ["10.78.0.53"]}
    assert any(route["dst"] == "192.0.2.0/24" for route in first["routes"])
    agent.kill()
    forget_marks(node)
    agent.start()
    assert recovered(agent)["completed"] == 1
    assert runtime.add(pod, **delegated).result == first


@DATAPATHS
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_an_agent_killed_while_a_delegate_is_at_work_leaves_nothing_in_the_way(
    node: Node, agent: Agent, runtime: Runtime, pod: Pod, datapath: str, verb: str
) -> None:
    before = node.kernel()
    gate = hanging(node)
    runtime.conf.update(cniVersion="1.0.0", datapath=datapath, ipam={"type": "hang"})
    call = runtime.start("ADD", pod)
    await_true(lambda: gate.with_name("hang.begun").exists(), "the delegate runs")
    agent.kill()
    assert finish(call).code == 11
    gate.touch()
    agent.start()
    if verb == "ADD":
        assert runtime.add(pod).address == "10.78.0.9"
        assert pod.addresses() == {"10.78.0.9"}
    assert runtime.delete(pod).status == 0
    assert agent.leases() == []
    assert "eth0" not in pod.links()
    await_true(lambda: node.kernel() == before, "nothing of it is left on the node")


@DATAPATHS
def test_an_add_that_was_cut_short_is_undone(
    node: Node, agent: Agent, runtime: Runtime, pod: Pod, datapath: str
) -> None:
    before = node.kernel()
    runtime.conf["datapath"] = datapath
    address = runtime.add(pod).address
    agent.kill()
    forget_marks(node)
    read_batch(pod.netns, f"addr del {address}/{32 if datapath == 'veth' else 16} dev eth0")
    agent.start()
    assert recovered(agent)["undone"] == 1
    assert agent.leases() == []
    assert "eth0" not in pod.links()
    await_true(lambda: node.kernel() == before, "nothing of it is left on the node")
    assert runtime.add(pod).status == 0


def test_an_attachment_that_was_told_of_is_not_judged_by_its_state(
    node: Node, agent: Agent, runtime: Runtime, pod: Pod
) -> None:
    address = runtime.add(pod).address
    agent.stop()
    read_batch(pod.netns, f"addr del {address}/32 dev eth0")
    agent.start()
    assert len(agent.leases()) == 1
    assert "eth0" in pod.links()


def test_what_carries_our_marks_and_belongs_to_no_lease_is_swept_and_nothing_else(
    node: Node, agent: Agent, runtime: Runtime, pod: Pod
) -> None:
    runtime.add(pod)
    agent.kill()
    before = node.kernel()
    foreign = ["link add theirs type veth peer name theirs2", "route add 10.200.0.1 dev eth0"]
    ours = [
        "link add und00000000000 type veth peer name peer",
        "link set und00000000000 alias cni-underlay:0000000000000000000000000000000000000000",
        "route add 10.77.9.9 dev eth0 proto 85",
        "neigh add proxy 10.77.9.9 dev eth0 proto 85",
    ]
    read_batch(node.netns, *foreign, *ours)
    agent.start()
    swept = recovered(agent)["swept"]
    assert len(swept) == 3
    after = node.kernel()
    assert after["links"] == sorted([*before["links"], "theirs", "theirs2"])
    assert after["proxies"] == before["proxies"]
    assert after["routes"] == before["routes"]
    assert "10.200.0.1" in str(read_batch(node.netns, "route show")[0])


def test_running_pods_of_a_ledger_that_was_lost_are_left_alone_for_ever(
    node: Node, agent: Agent, runtime: Runtime, pod: Pod
) -> None:
    address = runtime.add(pod).address
    agent.stop()
    before = node.kernel()
    node.ledger.write_bytes(b"\xff" * 8192)
    for name in ("ledger.db-wal", "ledger.db-shm"):
        node.ledger.with_name(name).unlink(missing_ok=True)
    for _ in range(2):  # the second start finds a ledger that is in order, and knows nothing
        agent.start()
        assert node.kernel() == before
        assert pod.addresses() == {address}
        agent.stop()
    agent.start()
    assert len(agent.log("recovered")) == 4
    assert any("damaged" in line["msg"] for line in agent.log())
    assert runtime.delete(pod).status == 0
    assert pod.addresses() == set()
    assert node.kernel()["proxies"] == []


def test_ten_thousand_leases_are_recovered(node: Node, idle_agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    _fill(node, 10_000)
    start = time.monotonic()
    idle_agent.start()
    until_served = time.monotonic() - start
    assert recovered(idle_agent)["leases"] == 10_000
    assert len(idle_agent.leases()) == 10_000
    idle_agent.stop()
    start = time.monotonic()
    start_after_reboot(idle_agent)
    until_rebooted = time.monotonic() - start
    assert recovered(idle_agent)["other_boot"] == 10_000
    assert idle_agent.ask("pools")[0]["quarantined"] == 10_000
    with capsys.disabled():
        print(  # noqa: T201  # numbers for whoever reads the run
            f"\n10,000 leases: serving {until_served:.2f} s after the start, {until_rebooted:.2f} s after a reboot"
        )


def _fill(node: Node, count: int) -> None:
    clock = Clock()
    pools = tuple(pools_from_documents([("test", {"pools": POOLS})]).values())
    node.ledger.parent.mkdir()
    store = SQLiteStore(node.ledger, clock())

    def lease(number: int) -> int:
        claim = Claim(
            attachment=Attachment(network="net", container_id=f"filler-{number}", ifname="eth0"),
            datapath=DatapathKind.MACVLAN,
            mode="bridge",
            master="eth0",
            netns_path="/nonexistent",
            netns_inode=1,
        )
        return store.acquire(claim, pools, (), clock()).generation

    try:
        with ThreadPoolExecutor(64) as workers:  # together they share commits
            for generation in workers.map(lease, range(count)):
                store.confirm(generation)
        assert store.holder(ip_address("10.77.1.0")) is not None
    finally:
        store.close()
