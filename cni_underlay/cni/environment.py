"""The environment of a CNI call: variables and CNI_ARGS, checked once (CNI specification, section 2 "Parameters").

Strings come decoded with `surrogateescape`. An unset variable and an empty one are the same thing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from cni_underlay.cni import grammar
from cni_underlay.errors import InvalidEnvironmentError
from cni_underlay.records import IPAddress, Pod


class Verb(StrEnum):
    """CNI_COMMAND."""

    ADD = "ADD"
    CHECK = "CHECK"
    DEL = "DEL"
    GC = "GC"
    STATUS = "STATUS"
    VERSION = "VERSION"


@dataclass(frozen=True, slots=True)
class CniArgs:
    """CNI_ARGS. Unknown keys do no harm, with or without `IgnoreUnknown`; of a key given twice the last counts.

    `ip` and `mac` are read when asked for, because a stronger source makes them not count at all (CONVENTIONS.md).
    """

    pairs: tuple[tuple[str, str], ...] = ()

    def get(self, key: str) -> str:
        """The value, or '' where there is none."""
        return next((value for name, value in reversed(self.pairs) if name == key), "")

    @property
    def pod(self) -> Pod:
        """Whose container it is, as far as the runtime said."""
        found = dict(self.pairs)
        return Pod(
            namespace=found.get("K8S_POD_NAMESPACE", ""),
            name=found.get("K8S_POD_NAME", ""),
            uid=found.get("K8S_POD_UID", ""),
        )

    @property
    def ip(self) -> tuple[IPAddress, ...]:
        """`IP=a.b.c.d[/len]`, also several with commas; raises `InvalidEnvironmentError`."""
        try:
            return tuple(grammar.address(text.strip()) for text in self.get("IP").split(",") if text.strip())
        except ValueError as error:
            raise InvalidEnvironmentError(f"CNI_ARGS: IP: {error}") from error

    @property
    def mac(self) -> str:
        """`MAC=...` in normal form, '' where there is none; raises `InvalidEnvironmentError`."""
        text = self.get("MAC")
        try:
            return grammar.mac(text) if text else ""
        except ValueError as error:
            raise InvalidEnvironmentError(f"CNI_ARGS: MAC: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call. `plugin` is the file name the client was started as; `path` the directories of CNI_PATH.

    `netns` is CNI_NETNS verbatim. For GC, STATUS and VERSION container id, namespace and interface are empty whatever
    the environment says: libcni sends empty and dummy values there. `environment` is all of it, for delegates.
    """

    verb: Verb
    plugin: str
    container_id: str = ""
    netns: str = ""
    ifname: str = ""
    args: CniArgs = field(default_factory=CniArgs)
    path: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


# CNI_PATH is missing here although skel requires it: the specification calls it optional, and only a delegate needs it.
_REQUIRED: Final[Mapping[Verb, tuple[str, ...]]] = {
    Verb.ADD: ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    Verb.CHECK: ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    Verb.DEL: ("CNI_CONTAINERID", "CNI_IFNAME"),
}
_VERBS: Final[Mapping[str, Verb]] = {verb.value: verb for verb in Verb}


def parse_call(environment: Mapping[str, str]) -> Call:
    """The call that `environment` describes, with the client's name in its entry `argv0`.

    Raises `InvalidEnvironmentError`. A malformed CNI_ARGS fails ADD and CHECK only, it must not stop a DEL.
    """
    verb = _verb(environment.get("CNI_COMMAND", ""))
    plugin = environment.get("argv0", "").rpartition("/")[2]
    path = tuple(filter(None, environment.get("CNI_PATH", "").split(":")))
    required = _REQUIRED.get(verb)
    if required is None:
        return Call(verb=verb, plugin=plugin, path=path, environment=environment)
    container_id = environment.get("CNI_CONTAINERID", "")
    netns = environment.get("CNI_NETNS", "")
    ifname = environment.get("CNI_IFNAME", "")
    # A bad value is reported at once, missing ones together (skel).
    if container_id and not grammar.is_identifier(container_id):
        raise InvalidEnvironmentError("CNI_CONTAINERID: invalid characters in containerID", container_id)
    if ifname:
        _require_name(ifname, verb)
    missing = [name for name in required if not environment.get(name)]
    if missing:
        raise InvalidEnvironmentError(f"required env variables [{','.join(missing)}] missing")
    if verb is Verb.DEL:
        args = _lenient_args(environment.get("CNI_ARGS", ""))
    else:
        _require_utf8("CNI_NETNS", netns)  # the result must repeat it verbatim, and JSON holds nothing else
        args = _args(environment.get("CNI_ARGS", ""))
    return Call(
        verb=verb,
        plugin=plugin,
        container_id=container_id,
        netns=netns,
        ifname=ifname,
        args=args,
        path=path,
        environment=environment,
    )


def _verb(command: str) -> Verb:
    if not command:
        raise InvalidEnvironmentError("required env variables [CNI_COMMAND] missing")
    verb = _VERBS.get(command)
    if verb is None:
        raise InvalidEnvironmentError(f"unknown CNI_COMMAND: {grammar.clip(command)}")
    return verb


def _require_name(ifname: str, verb: Verb) -> None:
    fault = grammar.name_fault(ifname)
    if not fault and verb is not Verb.DEL:  # a DEL after the refused ADD must succeed, or the pod never goes away
        fault = grammar.trap(ifname)
    if fault:
        raise InvalidEnvironmentError(f"CNI_IFNAME: {grammar.clip(ifname)!r} {fault}")


def _require_utf8(variable: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidEnvironmentError(f"{variable}: {grammar.clip(value)!r} is not UTF-8") from error


def _args(text: str) -> CniArgs:
    """CNI_ARGS of an ADD or CHECK, as libcni's LoadArgs reads it, but with empty items and unknown keys allowed."""
    if not text:
        return CniArgs()
    _require_utf8("CNI_ARGS", text)
    pairs = []
    for item in filter(None, text.split(";")):
        key, equals, value = item.partition("=")
        if not key or not equals or "=" in value:
            raise InvalidEnvironmentError(f"CNI_ARGS: {grammar.clip(item)!r} is not of the form KEY=VALUE")
        pairs.append((key, value))
    return CniArgs(tuple(pairs))


def _lenient_args(text: str) -> CniArgs:
    """CNI_ARGS of a DEL: what can be read of it."""
    items = (item.partition("=") for item in grammar.legible(text).split(";"))
    return CniArgs(tuple((key, value) for key, equals, value in items if key and equals))
