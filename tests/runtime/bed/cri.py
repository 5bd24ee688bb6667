"""What the kubelet says to a runtime, in the few calls these tests need: CRI runtime.v1 over gRPC on a unix socket."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc
from google.protobuf.message import Message

from .messages import MESSAGES

_READY = 0  # PodSandboxState.SANDBOX_READY


class CriError(Exception):
    """The runtime refused a call; the message is what the kubelet would write into the pod's events."""

    def __init__(self, method: str, code: str, text: str) -> None:
        super().__init__(f"{method}: {code}: {text}")
        self.code = code
        self.text = text


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPort:
    """A container port published on the node, TCP."""

    host_port: int
    container_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """What the kubelet asks a sandbox for. `cgroup_parent` is an absolute path in each cgroup hierarchy."""

    name: str
    uid: str
    namespace: str = "default"
    attempt: int = 0
    cgroup_parent: str
    handler: str = ""
    host_ports: tuple[HostPort, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxStatus:
    """`ips` holds the pod's addresses, the primary one first; `netns` and `pid` are as containerd sees them."""

    ready: bool
    ips: tuple[str, ...]
    netns: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """How a command inside a container ended."""

    status: int
    stdout: str
    stderr: str


class Cri:
    """A client of one runtime. Calls may come from several threads at once, and raise `CriError` when refused."""

    def __init__(self, address: Path, timeout: float) -> None:
        self._channel = grpc.insecure_channel(f"unix:{address}")
        self._timeout = timeout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def version(self) -> str:
        """Name and version of the runtime."""
        answer = self._call("RuntimeService", "Version")
        return f"{answer.runtime_name} {answer.runtime_version}"

    def conditions(self) -> dict[str, tuple[bool, str]]:
        """`RuntimeReady` and `NetworkReady`, each with its message: what the kubelet makes the node's Ready from."""
        answer = self._call("RuntimeService", "Status")
        return {condition.type: (condition.status, condition.message) for condition in answer.status.conditions}

    def networks(self) -> tuple[str, ...]:
        """The configuration lists in force for the default handler, as their files read."""
        info = _info(self._call("RuntimeService", "Status", verbose=True).info, "cniconfig")
        return tuple(network["Config"]["Source"] for network in info["Networks"])

    def images(self) -> tuple[str, ...]:
        """The tags of every image."""
        return tuple(tag for image in self._call("ImageService", "ListImages").images for tag in image.repo_tags)

    def run_sandbox(self, pod: Pod) -> str:
        """Run the pod's sandbox and return its id."""
        config = _sandbox_config(pod)
        answer = self._call("RuntimeService", "RunPodSandbox", config=config, runtime_handler=pod.handler)
        return str(answer.pod_sandbox_id)

    def stop_sandbox(self, sandbox: str) -> None:
        self._call("RuntimeService", "StopPodSandbox", pod_sandbox_id=sandbox)

    def remove_sandbox(self, sandbox: str) -> None:
        self._call("RuntimeService", "RemovePodSandbox", pod_sandbox_id=sandbox)

    def sandboxes(self) -> tuple[str, ...]:
        """The ids of all sandboxes, ready or not."""
        return tuple(item.id for item in self._call("RuntimeService", "ListPodSandbox").items)

    def sandbox_status(self, sandbox: str) -> SandboxStatus:
        answer = self._call("RuntimeService", "PodSandboxStatus", pod_sandbox_id=sandbox, verbose=True)
        status = answer.status
        info = _info(answer.info, "info")
        namespaces = info["runtimeSpec"]["linux"]["namespaces"]
        return SandboxStatus(
            ready=status.state == _READY,
            ips=tuple(filter(None, [status.network.ip, *(item.ip for item in status.network.additional_ips)])),
            netns=next((item.get("path", "") for item in namespaces if item["type"] == "network"), ""),
            pid=info["pid"],
        )

    def start_container(self, sandbox: str, pod: Pod, image: str, command: Sequence[str]) -> str:
        """Create a container in the sandbox, start it, and return its id."""
        config = _message(
            "ContainerConfig",
            metadata=_message("ContainerMetadata", name="app"),
            image=_message("ImageSpec", image=image),
            command=command,
        )
        container = self._call(
            "RuntimeService",
            "CreateContainer",
            pod_sandbox_id=sandbox,
            config=config,
            sandbox_config=_sandbox_config(pod),
        ).container_id
        self._call("RuntimeService", "StartContainer", container_id=container)
        return str(container)

    def stop_container(self, container: str) -> None:
        """Kill the container at once: a grace period would only wait, as busybox as process 1 ignores SIGTERM."""
        self._call("RuntimeService", "StopContainer", container_id=container)

    def remove_container(self, container: str) -> None:
        self._call("RuntimeService", "RemoveContainer", container_id=container)

    def execute(self, container: str, *command: str) -> Output:
        """Run a command inside a container and wait for it, at most ten seconds."""
        answer = self._call("RuntimeService", "ExecSync", container_id=container, cmd=command, timeout=10)
        return Output(status=answer.exit_code, stdout=answer.stdout.decode(), stderr=answer.stderr.decode())

    def _call(self, service: str, method: str, /, **fields: Any) -> Any:  # dynamic messages have no static type
        request, answer = MESSAGES[f"{method}Request"], MESSAGES[f"{method}Response"]
        stub = self._channel.unary_unary(
            f"/runtime.v1.{service}/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=answer.FromString,
        )
        with _translated(method):
            return stub(request(**fields), timeout=self._timeout)


@contextmanager
def _translated(method: str) -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise CriError(method, error.code().name, error.details() or "") from error


def _info(entries: Iterable[Any], key: str) -> Any:  # what verbose answers carry is free-form JSON
    return json.loads(next(entry.value for entry in entries if entry.key == key))


def _message(name: str, /, **fields: Any) -> Message:
    return MESSAGES[name](**fields)


def _sandbox_config(pod: Pod) -> Message:
    return _message(
        "PodSandboxConfig",
        metadata=_message(
            "PodSandboxMetadata", name=pod.name, uid=pod.uid, namespace=pod.namespace, attempt=pod.attempt
        ),
        hostname=pod.name,
        port_mappings=[
            _message("PortMapping", host_port=port.host_port, container_port=port.container_port)
            for port in pod.host_ports
        ],
        annotations=[_message("Entry", key=key, value=value) for key, value in pod.annotations],
        linux=_message("LinuxPodSandboxConfig", cgroup_parent=pod.cgroup_parent),
    )
