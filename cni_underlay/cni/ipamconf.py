"""The `ipam` block: ours, which takes host-local's keys beside `pools`, or another plugin's, whose type alone counts.

Only shapes are read here; what ranges mean is decided by the layer that makes pools of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from cni_underlay.cni import document, grammar
from cni_underlay.cni.document import Spellings
from cni_underlay.cni.shapes import RouteShape
from cni_underlay.errors import DecodingError, InvalidConfigError, UnsupportedFieldError
from cni_underlay.records import Route

OWN_TYPE: Final = "underlay-ipam"


class RangeConf(msgspec.Struct, frozen=True, rename="camel"):
    """One range object as it is written; an empty string where a key is absent."""

    subnet: str = ""
    range_start: str = ""
    range_end: str = ""
    gateway: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IpamConf:
    """An `ipam` block that we serve: names of pools, or sets of ranges of which each gives one address, in order.

    Both are empty for DEL and GC, which need neither, and may be for STATUS, which gets no runtimeConfig.
    """

    type: str
    pools: tuple[str, ...] = ()
    ranges: tuple[tuple[RangeConf, ...], ...] = ()
    routes: tuple[Route, ...] = ()
    resolv_conf: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegateConf:
    """An `ipam` block for another plugin: the file name to look for in CNI_PATH."""

    type: str


class _Block(msgspec.Struct, frozen=True, rename="camel"):
    type: str = ""
    pools: tuple[str, ...] = ()
    subnet: str = ""
    range_start: str = ""
    range_end: str = ""
    gateway: str = ""
    ranges: tuple[tuple[RangeConf, ...], ...] = ()
    routes: tuple[RouteShape, ...] = ()
    resolv_conf: str = ""
    data_dir: str = ""


_Kind = TypeVar("_Kind")

_NAMES: Final = Spellings.of(_Block, RangeConf, RouteShape)
_TYPE: Final = Spellings.naming("type")
# Operators and libraries put these anywhere; the specification forbids to refuse them.
_TOLERATED: Final = frozenset({"args", "runtimeConfig", "capabilities", "prevResult", "cniVersions"})


def type_of(block: object) -> str:
    """The type a block names, '' where it is absent or no text; raises `InvalidConfigError` for a path."""
    name = document.known(block, _TYPE).get("type")
    if not isinstance(name, str):
        return ""
    if name and not grammar.is_file_name(name):
        raise InvalidConfigError(f"ipam.type: {grammar.clip(name)!r} is no plain file name")
    return name


def decode(block: object, dynamic: tuple[tuple[RangeConf, ...], ...]) -> tuple[IpamConf, tuple[str, ...]]:
    """Our own block, and in words what of it has no effect.

    `dynamic` ranges (runtimeConfig) come before the block's own, as in host-local.
    Raises `DecodingError`, `UnsupportedFieldError` with key and value, `InvalidConfigError`.
    """
    folded = document.fold(block, _NAMES)
    _refuse_unknown(folded)
    shape = document.convert(folded, _Block, "ipam")
    ignored = [f"ipam.dataDir {shape.data_dir!r} is ignored: the agent keeps its own ledger"] if shape.data_dir else []
    ranges = dynamic + shape.ranges
    if shape.subnet:
        alone = RangeConf(shape.subnet, shape.range_start, shape.range_end, shape.gateway)
        ranges = (*dynamic, (alone,), *shape.ranges)
    elif shape.range_start or shape.range_end or shape.gateway:
        ignored.append("ipam.rangeStart, rangeEnd and gateway are ignored without ipam.subnet")
    _require_sets(dynamic, "runtimeConfig.ipRanges")
    _require_sets(shape.ranges, "ipam.ranges")
    conf = IpamConf(
        type=shape.type,
        pools=_pools(shape.pools),
        ranges=ranges,
        routes=tuple(_routes(shape.routes)),
        resolv_conf=shape.resolv_conf,
    )
    if conf.pools and conf.ranges:
        raise InvalidConfigError(
            "ipam: `pools` and inline ranges (subnet, ranges, runtimeConfig.ipRanges) exclude each other"
        )
    return conf, tuple(ignored)


def require_source(conf: IpamConf) -> None:
    """Raise `InvalidConfigError` when a block that has to give addresses names nowhere to take them from."""
    if not conf.pools and not conf.ranges:
        raise InvalidConfigError(
            'ipam: write "pools": ["name"] (pools of the agent), "subnet": "10.0.0.0/24", or "ranges"'
        )


def range_sets(value: Sequence[Any]) -> tuple[tuple[RangeConf, ...], ...]:
    """runtimeConfig.ipRanges: sets of ranges, as the convention has it, or go-cni's flat list of ranges.

    A flat list becomes one set for each family: an attachment gets one address of each.
    """
    if all(isinstance(entry, list) for entry in value):
        return tuple(tuple(_range(item) for item in entry) for entry in value)
    families: dict[bool, list[RangeConf]] = {}
    for entry in value:
        found = _range(entry)
        families.setdefault(":" in found.subnet, []).append(found)
    return tuple(tuple(ranges) for ranges in families.values())


def _range(value: object) -> RangeConf:
    return document.read(value, RangeConf, _NAMES, "runtimeConfig.ipRanges")


def _refuse_unknown(block: object) -> None:
    """A misspelled key of our own block would silently change which addresses pods get."""
    if not isinstance(block, dict):
        raise DecodingError(f"ipam: expected an object, got {document.shown(block)}")
    _require_fields(block, _Block, "ipam")
    for index, route in _entries(block.get("routes"), dict):
        _require_fields(route, RouteShape, f"ipam.routes[{index}]")
    for index, ranges in _entries(block.get("ranges"), list):
        for inner, entry in _entries(ranges, dict):
            _require_fields(entry, RangeConf, f"ipam.ranges[{index}][{inner}]")


def _entries(value: object, kind: type[_Kind]) -> Iterable[tuple[int, _Kind]]:
    """The entries of that kind in a list; anything else is left for the types to be wrong about."""
    if isinstance(value, list):
        yield from ((index, entry) for index, entry in enumerate(value) if isinstance(entry, kind))


def _require_fields(entry: Mapping[str, Any], shape: type[msgspec.Struct], where: str) -> None:
    for key, value in entry.items():
        if key in shape.__struct_encode_fields__ or key in _TOLERATED or key.startswith("cni.dev/"):
            continue
        raise UnsupportedFieldError(
            f'{where}: unsupported field "{grammar.clip(key)}" with value {document.shown(value)}',
            f"known here: {', '.join(shape.__struct_encode_fields__)}",
        )


def _require_sets(sets: tuple[tuple[RangeConf, ...], ...], where: str) -> None:
    for index, ranges in enumerate(sets):
        if not ranges:
            raise InvalidConfigError(f"{where}[{index}]: the set of ranges is empty")
        if not all(entry.subnet for entry in ranges):
            raise InvalidConfigError(f"{where}[{index}]: a range has no subnet")


def _pools(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not grammar.is_identifier(name):
            raise InvalidConfigError(f"ipam.pools: {grammar.clip(name)!r} is no name of a pool")
    return tuple(dict.fromkeys(names))


def _routes(shapes: tuple[RouteShape, ...]) -> Iterable[Route]:
    for index, shape in enumerate(shapes):
        try:
            yield shape.record()
        except ValueError as error:
            raise InvalidConfigError(f"ipam.routes[{index}]: {error}") from error
