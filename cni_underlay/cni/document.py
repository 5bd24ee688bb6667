"""From bytes to JSON objects with known spellings: what is true of every object of the specification stands here once.

* Text is strict: UTF-8, one document, an object (code 6 otherwise), whatever its depth or size.
* `null` means absent, and keys are looked up exactly first, then without case: both are what Go's encoding/json does,
  and go-cni sends untagged fields (`HostPort`, `Servers`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from cni_underlay.cni.grammar import clip
from cni_underlay.errors import DecodingError

_Shape = TypeVar("_Shape", bound=msgspec.Struct)

_DECODER: Final = msgspec.json.Decoder(dict[str, Any])
_DEEPEST: Final = 5  # containers inside each other in the deepest shape of ours: ipam, ranges, set, range


@dataclass(frozen=True, slots=True)
class Spellings:
    """The keys that some shapes know: as they are spelled, and by their lower-case form."""

    exact: frozenset[str]
    anyhow: Mapping[str, str]

    @classmethod
    def of(cls, *shapes: type[msgspec.Struct]) -> "Spellings":
        """The keys of `shapes`."""
        return cls.naming(*(key for shape in shapes for key in shape.__struct_encode_fields__))

    @classmethod
    def naming(cls, *keys: str) -> "Spellings":
        """These keys."""
        return cls(frozenset(keys), {key.lower(): key for key in keys})


def parse(text: bytes) -> dict[str, Any]:
    """The JSON object in `text`; raises `DecodingError`. Of a key given twice the last counts."""
    try:
        return _DECODER.decode(text)
    except RecursionError as error:
        raise DecodingError("standard input is nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecodingError("standard input is not a JSON object in UTF-8", clip(str(error))) from error


def known(value: object, names: Spellings) -> dict[str, Any]:
    """The entries of one object whose keys are in `names`, spelled as there; without nulls. Empty for anything else."""
    if not isinstance(value, dict):
        return {}
    return {key: item for key, item in _respelled(value, names) if key in names.exact}


def read(value: object, shape: type[_Shape], names: Spellings, where: str) -> _Shape:
    """`value` as `shape`, respelled all the way down; raises `DecodingError` that begins with `where`."""
    if isinstance(value, dict):  # what the shape does not know (pod annotations, say) need not be walked
        value = {key: fold(item, names, _DEEPEST - 1) for key, item in known(value, names).items()}
    return convert(value, shape, where)


def convert(value: object, shape: type[_Shape], where: str) -> _Shape:
    """As `read`, for a value that has been through `fold`."""
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        raise DecodingError(f"{where}: {clip(str(error))}") from error


def fold(value: object, names: Spellings, depth: int = _DEEPEST) -> object:
    """`value` with all keys of `names` spelled as there, and without nulls, down to `depth` containers."""
    if depth == 0:
        return value
    if isinstance(value, dict):
        return {key: fold(item, names, depth - 1) for key, item in _respelled(value, names)}
    if isinstance(value, list):
        return [fold(item, names, depth - 1) for item in value]
    return value


def shown(value: object) -> str:
    """A JSON value for a message."""
    try:
        return clip(msgspec.json.encode(value).decode())
    except (RecursionError, OverflowError, UnicodeEncodeError):
        return f"a {type(value).__name__}"


def _respelled(value: Mapping[str, Any], names: Spellings) -> Iterator[tuple[str, Any]]:
    """The entries of an object without nulls; where a key stands in several spellings, the exact one counts."""
    for key, item in value.items():
        if item is None:
            continue
        name = key if key in names.exact else names.anyhow.get(key.lower(), key)
        if name == key or value.get(name) is None:
            yield name, item
