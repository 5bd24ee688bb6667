"""1000 pods at 32 in parallel, the agent killed ten times: no duplicate, and nothing left."""

import os
import random
import time

import pytest

from ..agent.bed.agent import Agent, await_true
from ..agent.bed.node import Node
from .storm import Storm

PAIRS = int(os.environ.get("UNDERLAY_STORM_PAIRS", "1000"))
KILLS = int(os.environ.get("UNDERLAY_STORM_KILLS", "10"))
PARALLEL = 32
# Few enough addresses, and rests short enough, for every address to have several owners one after the other.
POOLS = [
    {
        "name": "app",
        "quarantine": "2s",
        "floor": "200ms",
        "ranges": [{"subnet": "10.77.0.0/16", "range": "10.77.1.0-10.77.1.199"}],
    }
]


def test_no_address_has_two_owners_and_nothing_is_left_behind(
    node: Node, agent: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("UNDERLAY_STORM_SEED", random.SystemRandom().randrange(1 << 32)))
    clean = node.kernel()
    agent.configure(pools=POOLS, log_level="info")
    agent.start()
    storm = Storm(node, agent, seed)
    start = time.monotonic()
    storm.run(PAIRS, PARALLEL, KILLS)
    seconds = time.monotonic() - start
    with capsys.disabled():
        print(f"\nseed {seed}: {storm.tally} in {seconds:.1f} s")  # noqa: T201
    assert storm.duplicates == []
    assert storm.faults == []
    await_true(lambda: agent.serves() and not node.spooled(), "every DEL that was spooled is served")
    assert agent.leases() == []
    usage = {row["pool"]: row for row in agent.ask("pools")}
    assert usage["app"]["leased"] == 0
    await_true(lambda: node.kernel() == clean, "the node is as it was", 10)
    assert not agent.log("internal error")
    assert agent.stop() == 0


def test_the_ledgers_history_agrees_that_each_address_had_one_owner_at_a_time(node: Node, agent: Agent) -> None:
    agent.configure(pools=POOLS)
    agent.start()
    Storm(node, agent, 1).run(120, PARALLEL, 2)
    await_true(lambda: agent.serves() and not node.spooled(), "every DEL that was spooled is served")
    owners = 0
    for last in range(200):
        held = None
        for event in agent.ask("history", address=f"10.77.1.{last}"):
            if event["what"] == "leased":
                assert held is None, f"10.77.1.{last} was leased twice"
                held = event["generation"]
                owners += 1
            elif event["generation"]:
                assert event["generation"] == held
                held = None
        assert held is None
    assert owners >= 120
