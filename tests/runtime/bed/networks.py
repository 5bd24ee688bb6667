"""The lab these tests run in, and the networks that its containerd offers, by runtime handler."""

from typing import Any

POOL = "pods"
VM = "vm1"
GUEST = "guest1"

TOPOLOGY: dict[str, Any] = {
    "name": "runtime",
    "segments": {"lan": {"subnets": ["10.83.0.0/16", "fd83::/64"]}},
    "nodes": {
        "node1": {
            "segment": "lan",
            "addresses": ["10.83.0.11", "fd83::11"],
            "agent": {
                "http": False,
                "pools": [
                    {
                        "name": POOL,
                        "ranges": [
                            {"subnet": "10.83.0.0/16", "range": "10.83.1.0-10.83.8.255", "gateway": "10.83.0.1"},
                            {"subnet": "fd83::/64", "range": "fd83::1:0-fd83::1:ffff", "gateway": "fd83::1"},
                        ],
                    },
                    {
                        "name": "two",
                        "quarantine": 0,
                        "ranges": [
                            {"subnet": "10.83.0.0/16", "range": "10.83.0.32-10.83.0.33", "gateway": "10.83.0.1"}
                        ],
                    },
                ],
            },
        },
        "node2": {
            "segment": "lan",
            "addresses": ["10.83.0.12", "fd83::12"],
            "agent": {
                "http": False,
                "pools": [
                    {
                        "name": POOL,
                        "ranges": [
                            {"subnet": "10.83.0.0/16", "range": "10.83.16.0-10.83.16.255", "gateway": "10.83.0.1"},
                            {"subnet": "fd83::/64", "range": "fd83::2:0-fd83::2:ffff", "gateway": "fd83::1"},
                        ],
                    },
                ],
            },
        },
    },
    "vms": {
        VM: {"segment": "lan", "addresses": ["10.83.0.21", "fd83::21"]},
        GUEST: {"segment": "lan", "addresses": ["10.83.0.22", "fd83::22"], "kind": "qemu"},
    },
}


def conflist(handler: str, datapath: str, *chained: dict[str, Any], pool: str = POOL) -> dict[str, Any]:
    """A configuration list as a node has it in /etc/cni/net.d; 1.0.0 is the newest that containerd 1.6 knows."""
    ipam = {"type": "underlay-ipam", "pools": [pool]}
    plugin = {"type": "underlay", "datapath": datapath, "master": "eth0", "ipam": ipam}
    return {"cniVersion": "1.0.0", "name": f"underlay-{handler}", "plugins": [plugin, *chained]}


NETWORKS = {
    "veth": conflist("veth", "veth"),
    "macvlan": conflist("macvlan", "macvlan"),
    "tiny": conflist("tiny", "veth", pool="two"),
    "chain": conflist(
        "chain",
        "veth",
        {"type": "portmap", "capabilities": {"portMappings": True}, "snat": False},
        {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}},
    ),
}
