from collections.abc import Callable

import pytest

from cni_underlay.ipam.pools import pool_from_mapping
from cni_underlay.records import Pool

MakePool = Callable[..., Pool]


@pytest.fixture
def make_pool() -> MakePool:
    """A pool of whole subnets; what else is given goes to the mapping as it is."""

    def make(*subnets: str, name: str = "app", **more: object) -> Pool:
        return pool_from_mapping({"name": name, "ranges": [{"subnet": subnet} for subnet in subnets], **more})

    return make
