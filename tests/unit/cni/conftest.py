"""For the tests of the specification: a call and a configuration as a runtime makes them, to be changed at will."""

import json
from collections.abc import Callable

import pytest

from cni_underlay.cni.environment import Call, parse_call
from cni_underlay.cni.netconf import NetConf, decode


@pytest.fixture
def environment() -> Callable[..., dict[str, str]]:
    """What containerd sets; keywords replace variables, `None` unsets one."""

    def make(verb: str = "ADD", **changes: str | None) -> dict[str, str]:
        variables = {
            "argv0": "/opt/cni/bin/underlay",
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": "3c91a7",
            "CNI_NETNS": "/var/run/netns/cni-1",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/opt/cni/bin:/usr/lib/cni",
            "CNI_ARGS": "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=77;IgnoreUnknown=1",
        }
        return {key: value for key, value in (variables | changes).items() if value is not None}

    return make


@pytest.fixture
def call(environment: Callable[..., dict[str, str]]) -> Callable[..., Call]:
    """A parsed call; arguments as for `environment`."""
    return lambda verb="ADD", **changes: parse_call(environment(verb, **changes))


@pytest.fixture
def conf(call: Callable[..., Call]) -> Callable[..., NetConf]:
    """A decoded configuration of a call; keys of `changes` replace its own, `...` removes one."""

    def make(changes: dict[str, object], verb: str = "ADD", plugin: str = "underlay") -> NetConf:
        whole: dict[str, object] = {
            "cniVersion": "1.1.0",
            "name": "net",
            "type": "underlay",
            "ipam": {"type": "underlay-ipam", "pools": ["app"]},
            **changes,
        }
        stdin = json.dumps({key: value for key, value in whole.items() if value is not ...}).encode()
        return decode(stdin, call(verb, argv0=plugin))

    return make
