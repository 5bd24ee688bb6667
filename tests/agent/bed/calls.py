"""Calls of the real client, as a runtime makes them."""

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .node import REFERENCE, Node, Pod


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Exit status and outputs of one call."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def result(self) -> dict[str, Any]:
        """What a successful ADD or VERSION printed."""
        assert self.status == 0, self
        document: dict[str, Any] = json.loads(self.stdout)
        return document

    @property
    def address(self) -> str:
        """The first address of an ADD's result, without its prefix length."""
        return str(self.result["ips"][0]["address"]).partition("/")[0]

    @property
    def error(self) -> dict[str, Any]:
        assert self.status != 0, self
        document: dict[str, Any] = json.loads(self.stdout)
        return document

    @property
    def code(self) -> int:
        return int(self.error["code"])

    def succeed(self) -> "Outcome":
        assert self.status == 0, self
        return self


@dataclass(slots=True, kw_only=True)
class Runtime:
    """Calls `underlay` for one network. `conf` goes over the network's own keys in every call."""

    node: Node
    conf: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    def configuration(self, **keys: Any) -> dict[str, Any]:
        ipam = {"type": "underlay-ipam", "pools": ["app"]}
        return {"cniVersion": "1.1.0", "name": "net", "type": "underlay", "ipam": ipam, **self.conf, **keys}

    def variables(self, verb: str, pod: Pod | None) -> dict[str, str]:
        return {
            "CNI_COMMAND": verb,
            "CNI_PATH": f"{self.node.bin}:{REFERENCE}",
            "UNDERLAY_SOCKET": str(self.node.socket),
            **(_of_pod(pod) if pod else {}),
            **self.environment,
        }

    def start(self, verb: str, pod: Pod | None = None, **keys: Any) -> "subprocess.Popen[bytes]":
        """Start a call and let it run. Its standard input is whole already, whether it reads it or not."""
        descriptor = os.memfd_create("stdin")
        with open(descriptor, "w+b", buffering=0) as stdin:  # noqa: PTH123  # a descriptor
            stdin.write(json.dumps(self.configuration(**keys)).encode())
            stdin.seek(0)
            return self.node.inside(
                lambda: subprocess.Popen(
                    [self.node.bin / "underlay"],
                    env=self.variables(verb, pod),
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    cwd="/",
                )
            )

    def __call__(self, verb: str, pod: Pod | None = None, **keys: Any) -> Outcome:
        """A call from start to end; `keys` go over the configuration's."""
        return finish(self.start(verb, pod, **keys))

    def add(self, pod: Pod, **keys: Any) -> Outcome:
        return self("ADD", pod, **keys)

    def delete(self, pod: Pod, **keys: Any) -> Outcome:
        return self("DEL", pod, **keys)


def _of_pod(pod: Pod) -> dict[str, str]:
    return {
        "CNI_CONTAINERID": pod.container,
        "CNI_NETNS": str(pod.netns),
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={pod.netns.name};K8S_POD_UID=u-1",
    }


def finish(process: "subprocess.Popen[bytes]", seconds: float = 90.0) -> Outcome:
    """The outcome of a call that was started."""
    try:
        stdout, stderr = process.communicate(timeout=seconds)
    finally:
        process.kill()
        process.wait()
    return Outcome(status=process.returncode, stdout=stdout, stderr=stderr)


def hanging(node: Node, name: str = "hang") -> Path:
    """A delegate that says when it begins, and waits on ADD and STATUS until the returned file exists.

    Then it gives 10.78.0.9.
    """
    gate = node.directory / f"{name}.gate"
    begun = node.directory / f"{name}.begun"
    node.write_plugin(
        name,
        [
            f'echo "$CNI_COMMAND $CNI_CONTAINERID" >> {begun}',
            'case "$CNI_COMMAND" in ADD|STATUS) ;; *) exit 0 ;; esac',
            f"while [ ! -e {gate} ]; do sleep 0.02; done",
            '[ "$CNI_COMMAND" = ADD ] || exit 0',
            'echo \'{"cniVersion":"1.0.0","ips":[{"address":"10.78.0.9/24","gateway":"10.78.0.1"}]}\'',
        ],
    )
    return gate
