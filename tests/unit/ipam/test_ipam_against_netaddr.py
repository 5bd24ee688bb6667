"""What a pool can give, computed a second time by netaddr's sets."""

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st
from netaddr import IPAddress, IPNetwork, IPRange, IPSet

from cni_underlay.ipam.keys import address_of
from cni_underlay.ipam.pools import pool_from_mapping
from cni_underlay.ipam.span import span_of

_HOSTS = st.integers(1, 254)


@given(
    bounds=st.tuples(_HOSTS, _HOSTS).map(sorted),
    gateway=_HOSTS,
    singles=st.lists(_HOSTS, max_size=4),
    block=st.sampled_from([None, 26, 28, 30]),
)
def test_a_pool_gives_what_netaddr_says_is_left(
    bounds: list[int], gateway: int, singles: list[int], block: int | None
) -> None:
    first, last = bounds
    exclude = [f"10.7.0.{host}" for host in singles] + ([f"10.7.0.64/{block}"] if block else [])
    left = IPSet(IPRange(f"10.7.0.{first}", f"10.7.0.{last}")) - IPSet([IPNetwork(each) for each in exclude])
    left -= IPSet([IPAddress(f"10.7.0.{gateway}")])
    if not left:
        return  # such a pool is refused, which has its own tests
    pool = pool_from_mapping(
        {
            "name": "app",
            "ranges": [
                {
                    "subnet": "10.7.0.0/24",
                    "range": f"10.7.0.{first}-10.7.0.{last}",
                    "gateway": f"10.7.0.{gateway}",
                    "exclude": exclude,
                }
            ],
        }
    )
    span = span_of(pool.sets, 0)
    given_away = {address_of(key) for segment in span.segments for key in range(segment.first, segment.last + 1)}
    assert given_away == {ip_address(str(address)) for address in left}
    assert span.size == len(left)
