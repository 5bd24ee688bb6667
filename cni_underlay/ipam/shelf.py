"""What one pool holds of its addresses, kept apart from what the configuration says the pool is at the moment."""

from collections import Counter
from dataclasses import dataclass, field

from cni_underlay.ipam.rest import Rest
from cni_underlay.ipam.space import Space
from cni_underlay.ipam.span import Span, span_of
from cni_underlay.records import AddressRange, AddressState, Pool, PoolUsage


@dataclass(slots=True)
class Shelf:
    """`closed`: keys that may not be given out, for whatever reason. `aside`: those of them that nobody leased.

    `cursors`: the key leased last, by set. `quarantine` is the one of the latest lease from the pool. A key that is
    closed, not in `rest` and not in `aside` is leased: so a lease costs the memory of one bit.
    """

    name: str
    closed: Space = field(default_factory=Space)
    rest: Rest = field(default_factory=Rest)
    aside: dict[int, AddressState] = field(default_factory=dict)
    cursors: dict[int, int] = field(default_factory=dict)
    quarantine: float = 0.0
    _sets: tuple[tuple[AddressRange, ...], ...] = ()
    _spans: tuple[Span, ...] = ()

    def spans(self, pool: Pool) -> tuple[Span, ...]:
        """One span for each set. Those of the latest configuration are kept: it is the next lease's, too."""
        if pool.sets is not self._sets and pool.sets != self._sets:
            self._spans = tuple(span_of(pool.sets, slot) for slot in range(len(pool.sets)))
        self._sets = pool.sets
        return self._spans

    def state(self, key: int) -> AddressState | None:
        """None where the key is free, or its rest over."""
        if not self.closed.is_taken(key):
            return None
        if key in self.rest.resting:
            return AddressState.QUARANTINED
        return self.aside.get(key, AddressState.LEASED)

    def usage(self) -> PoolUsage:
        """An address whose rest is over counts as quarantined until it is leased or tidied, as in the ledger."""
        states = Counter(self.aside.values())
        return PoolUsage(
            pool=self.name,
            leased=self.closed.taken - len(self.rest.resting) - len(self.aside),
            quarantined=len(self.rest),
            reserved=states[AddressState.RESERVED],
            foreign=states[AddressState.FOREIGN],
        )
