"""Versions of the CNI specification: which are spoken, and which verbs each of them has."""

import re
from collections.abc import Mapping
from typing import Final

from cni_underlay.cni.environment import Verb
from cni_underlay.errors import DecodingError, IncompatibleVersionError

# Ascending, because libcni's CHECK, GC and STATUS gates walk the list of a VERSION answer in its order.
SUPPORTED: Final = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
OLDEST: Final = SUPPORTED[0]
NEWEST: Final = SUPPORTED[-1]

_SINCE: Final[Mapping[Verb, str]] = {Verb.CHECK: "0.4.0", Verb.GC: "1.1.0", Verb.STATUS: "1.1.0"}
_NUMBERS: Final = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,9}))?(?:\.([0-9]{1,9}))?")


def numbers(version: str) -> tuple[int, int, int]:
    """The version for comparing, as libcni's ParseVersion reads it; raises `DecodingError` where it is none."""
    match = _NUMBERS.fullmatch(version)
    if match is None:
        raise DecodingError(f"cniVersion: {version[:64]!r} is no version")
    major, minor, micro = (int(part or 0) for part in match.groups())
    return major, minor, micro


def require(version: str, verb: Verb) -> None:
    """Raise `IncompatibleVersionError` unless `verb` may be served for a configuration of `version`.

    CHECK, GC and STATUS with something that is no version at all raise `DecodingError`: skel parses it for them only.
    """
    since = _SINCE.get(verb)
    if since is not None and numbers(version) < numbers(since):
        raise IncompatibleVersionError(
            f"config version does not allow {verb}", f'config is "{version}", {verb} needs {since} or newer'
        )
    if version not in SUPPORTED:
        spoken = " ".join(f'"{known}"' for known in SUPPORTED)
        raise IncompatibleVersionError(
            "incompatible CNI versions", f'config is "{version[:64]}", plugin supports [{spoken}]'
        )
