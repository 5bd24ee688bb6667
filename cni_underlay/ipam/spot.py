"""A place in a configuration, for refusals that name file, pool, key and value, and say what to write instead."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cni_underlay.cni.grammar import clip
from cni_underlay.errors import InvalidConfigError


@dataclass(frozen=True, slots=True)
class Spot:
    """`owner` is what the path starts at (`pools.d/app.yaml: pool app`); shown as `owner: ranges[0].gateway`."""

    owner: str
    path: tuple[str | int, ...] = ()

    def __truediv__(self, step: str | int) -> "Spot":
        return Spot(self.owner, (*self.path, step))

    def __str__(self) -> str:
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path).lstrip(".")
        return ": ".join(filter(None, (self.owner, path)))

    def refuse(self, value: object, problem: str) -> InvalidConfigError:
        """To be raised; `problem` goes on from the value: `is outside ...; write ...`."""
        return InvalidConfigError(f"{self}: {clip(repr(value))} {problem}")

    def mapping(self, value: object, keys: Sequence[str]) -> Mapping[str, object]:
        if not isinstance(value, Mapping):
            raise self.refuse(value, f"is not a mapping; write the keys {', '.join(keys)}")
        for key, entry in value.items():
            if key not in keys:
                raise InvalidConfigError(
                    f"{self}: unknown key {clip(repr(key))} with value {clip(repr(entry))}; "
                    f"known here are {', '.join(keys)}"
                )
        return value

    def sequence(self, value: object) -> Sequence[object]:
        if not isinstance(value, list | tuple):
            raise self.refuse(value, "is not a list")
        return value

    def text(self, value: object) -> str:
        if not isinstance(value, str) or not value:
            raise self.refuse(value, "is not a text, or an empty one; write it in quotes")
        return value

    def texts(self, value: object) -> tuple[str, ...]:
        return tuple((self / index).text(entry) for index, entry in enumerate(self.sequence(value)))
