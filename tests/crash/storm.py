"""Many pods at once on a node whose agent is killed again and again, and a runtime that does what kubelet would.

Nothing here decides by time: a seed gives the datapaths, the pauses and which clients are killed; only the scheduling
is the machine's.
"""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ..agent.bed.agent import Agent
from ..agent.bed.calls import Outcome, Runtime, finish
from ..agent.bed.node import Node, Pod

BACK_OFF = 0.05  # seconds; kubelet's is longer, which would only make the test longer
KILLED_CLIENTS = 0.03  # of the ADDs: a runtime whose own deadline passes kills its plugins


@dataclass(slots=True)
class Tally:
    """What happened, for people."""

    pairs: int = 0
    refused_adds: int = 0
    killed_clients: int = 0
    repeated_dels: int = 0
    codes: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class Storm:
    """`live` are the addresses that a runtime was told of, and has not yet asked to take away."""

    node: Node
    agent: Agent
    seed: int
    tally: Tally = field(default_factory=Tally)
    live: dict[str, Pod] = field(default_factory=dict)
    duplicates: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _namespaces: threading.Lock = field(default_factory=threading.Lock)

    def run(self, pairs: int, parallel: int, kills: int) -> None:
        """Live through so many pods, while the agent is killed so many times, evenly spread over them."""
        killer = threading.Thread(target=self._kill, args=(pairs, kills))
        with ThreadPoolExecutor(parallel) as workers:
            killer.start()
            done = [workers.submit(self._live, random.Random(f"{self.seed}/{number}")) for number in range(pairs)]
            for future in done:
                future.result()
        killer.join()

    def _kill(self, pairs: int, kills: int) -> None:
        for kill in range(1, kills + 1):
            while self.tally.pairs < kill * pairs // (kills + 1):
                time.sleep(0.001)
            self.agent.kill()
            self.agent.launch()

    def _live(self, chance: random.Random) -> None:
        """One pod from its first try to its end."""
        runtime = Runtime(node=self.node, conf={"datapath": chance.choice(("veth", "macvlan"))})
        pod, address = self._started(runtime, chance)
        time.sleep(chance.random() * 0.05)
        if pod.addresses() != {address}:
            self.faults.append(f"{pod.container} was given {address} and has {pod.addresses()}")
        with self._guard:
            del self.live[address]  # before the DEL: whoever is served after it may have the address
        self._ended(runtime, pod)
        with self._guard:
            self.tally.pairs += 1

    def _started(self, runtime: Runtime, chance: random.Random) -> tuple[Pod, str]:
        """A running pod: an ADD that fails is followed by a DEL, and tried again as another container."""
        while True:
            with self._namespaces:  # their names are numbered
                pod = self.node.make_pod()
            outcome = self._add(runtime, pod, chance)
            if outcome is not None and outcome.status == 0:
                self._note(outcome.address, pod)
                return pod, outcome.address
            with self._guard:
                self.tally.refused_adds += 1
                if outcome is not None:
                    self.tally.codes[outcome.code] = self.tally.codes.get(outcome.code, 0) + 1
            self._ended(runtime, pod)
            time.sleep(BACK_OFF * (1 + chance.random()))

    def _add(self, runtime: Runtime, pod: Pod, chance: random.Random) -> Outcome | None:
        """The outcome of the ADD; None where its client was killed."""
        if chance.random() >= KILLED_CLIENTS:
            return runtime.add(pod)
        call = runtime.start("ADD", pod)
        time.sleep(chance.random() * 0.02)
        call.kill()
        finish(call)
        with self._guard:
            self.tally.killed_clients += 1
        return None

    def _note(self, address: str, pod: Pod) -> None:
        with self._guard:
            other = self.live.get(address)
            if other is not None:
                self.duplicates.append(f"{address}: {other.container} and {pod.container}")
            self.live[address] = pod

    def _ended(self, runtime: Runtime, pod: Pod) -> None:
        """DEL until it succeeds, then the sandbox goes."""
        while (outcome := runtime.delete(pod)).status != 0:
            with self._guard:
                self.tally.repeated_dels += 1
                self.tally.codes[outcome.code] = self.tally.codes.get(outcome.code, 0) + 1
            time.sleep(BACK_OFF)
        with self._namespaces:
            self.node.remove_pod(pod)
