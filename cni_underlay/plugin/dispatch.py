"""From a decoded call to its use case: one row for each verb and role."""

from collections.abc import Callable, Mapping
from functools import lru_cache

from cni_underlay.cni.environment import Call, Verb
from cni_underlay.cni.netconf import NetConf, Role, decode, role
from cni_underlay.plugin import add, check, delete, gc, status
from cni_underlay.plugin.services import Request, Services, Steps

UseCase = Callable[[Services, Request], bytes]

USE_CASES: Mapping[tuple[Verb, Role], UseCase] = {
    (Verb.ADD, Role.MAIN): add.add,
    (Verb.ADD, Role.IPAM): add.add_addresses,
    (Verb.DEL, Role.MAIN): delete.delete,
    (Verb.DEL, Role.IPAM): delete.delete_addresses,
    (Verb.CHECK, Role.MAIN): check.check,
    (Verb.CHECK, Role.IPAM): check.check_addresses,
    (Verb.GC, Role.MAIN): gc.collect,
    (Verb.GC, Role.IPAM): gc.collect_addresses,
    (Verb.STATUS, Role.MAIN): status.status,
    (Verb.STATUS, Role.IPAM): status.status_addresses,
}


_REMEMBERED_BYTES = 16384


@lru_cache(maxsize=128)  # every ADD of a network brings the same text; DEL and CHECK bring a result of their own
def _remembered(stdin: bytes, plugin: str) -> NetConf:
    return decode(stdin, Call(verb=Verb.ADD, plugin=plugin))


def prepare(
    call: Call, stdin: bytes, netns: int | None, netns_errno: int, steps: Steps, abandoned: Callable[[], bool]
) -> Request:
    """Decode and vet a call whose environment has been parsed; raises what the specification says for its input."""
    known = call.verb is Verb.ADD and len(stdin) <= _REMEMBERED_BYTES
    conf = _remembered(stdin, call.plugin) if known else decode(stdin, call)
    return Request(
        call=call,
        conf=conf,
        netns=netns,
        netns_errno=netns_errno,
        steps=steps,
        warnings=list(conf.ignored),
        abandoned=abandoned,
    )


def execute(services: Services, request: Request) -> bytes:
    """Run the use case; what it returns is the plugin's standard output."""
    return USE_CASES[request.call.verb, role(request.call, request.conf)](services, request)
