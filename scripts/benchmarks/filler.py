"""Fills a ledger through its own API, so that `allocation` measures what an agent would have after as many ADDs."""

from pathlib import Path

from cni_underlay.agent.clock import Clock
from cni_underlay.cni.netconf import RangeConf
from cni_underlay.ipam.pools import inline_pool
from cni_underlay.records import Attachment, Claim, Dns
from cni_underlay.store.sqlite import SQLiteStore

_TIDY = 100
SUBNET = "10.96.0.0/15"


def fill(ledger: Path, network: str, held: int) -> None:
    """Lease `held` addresses of the network's inline pool."""
    ledger.parent.mkdir(parents=True, exist_ok=True)
    clock = Clock()
    pool = inline_pool(network, ((RangeConf(subnet=SUBNET),),), (), Dns(), quarantine=0.0, floor=0.0)
    store = SQLiteStore(ledger, clock())
    try:
        for index in range(held):
            attachment = Attachment(network=network, container_id=f"filler-{index}", ifname="eth0")
            lease = store.acquire(Claim(attachment=attachment), (pool,), (), clock())
            store.confirm(lease.generation)
            if index % _TIDY == 0:
                store.tidy(clock())  # as the agent does all the time
    finally:
        store.close()
