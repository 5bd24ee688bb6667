"""A pod sandbox as a runtime has it: a namespace, a container id, and what the plugin answered for it."""

import json
import secrets
import shutil
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from ipaddress import ip_interface
from pathlib import Path

from cni_underlay.lab import netns, runtime
from cni_underlay.lab.errors import LabError
from cni_underlay.lab.host import NamespaceHost
from cni_underlay.lab.process import Processes, kill_members
from cni_underlay.lab.runtime import Execute, Json
from cni_underlay.records import IPAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """What outlives the process that called ADD: CHECK and DEL of another process need all of it."""

    container_id: str
    uid: str
    conf: Json | None = None
    ifname: str = "eth0"
    args: str = ""
    runtime_config: Json | None = None
    result: Json | None = None


class Pod(NamespaceHost):
    """A sandbox on a node, made when first named. `add` and `delete` only call plugins; `remove` takes it away."""

    def __init__(
        self, name: str, *, netns_path: Path, processes: Processes, directory: Path, execute: Execute, plugins: Path
    ) -> None:
        super().__init__(name, netns_path, processes, directory)
        self._execute = execute
        self._plugins = plugins
        self._file = directory / "pod.json"
        self._record = self._load() if self._file.exists() else self._make()

    @property
    def container_id(self) -> str:
        return self._record.container_id

    @property
    def result(self) -> Json | None:
        """What the last ADD answered; None before it and after DEL."""
        return self._record.result

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """The addresses of the result, in its order."""
        return tuple(ip_interface(entry["address"]).ip for entry in (self.result or {}).get("ips", ()))

    def add(
        self,
        conf: Json,
        *,
        ifname: str = "eth0",
        args: Mapping[str, str] | None = None,
        runtime_config: Json | None = None,
    ) -> Json:
        """ADD with a configuration or a list of them; the result. `args` join the CNI_ARGS that every runtime sends.

        What was asked is remembered also where it fails (`CniError`): the runtime's DEL follows then, too.
        """
        extra = ";".join(f"{key}={value}" for key, value in (args or {}).items())
        self._save(
            replace(self._record, conf=conf, ifname=ifname, args=extra, runtime_config=runtime_config, result=None)
        )
        result = runtime.add(self._execute, conf, self.cni_environment, runtime_config or {})
        self._save(replace(self._record, result=result))
        return result

    def check(self) -> None:
        """CHECK against the last result; raises `CniError`."""
        if self.result is None:
            raise LabError(f"pod {self.name} has no result to check against")
        runtime.check(self._execute, self._conf(), self.cni_environment, self._runtime_config(), self.result)

    def delete(self) -> None:
        """DEL with what ADD was called with; raises `CniError`."""
        runtime.delete(self._execute, self._conf(), self.cni_environment, self._runtime_config(), self.result)
        self._save(replace(self._record, result=None))

    def cni(self, verb: str, conf: Json, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """One raw call of one plugin; `env` goes over what a runtime would send. Nothing is remembered."""
        environment = {**self.cni_environment, "CNI_COMMAND": verb, **(env or {})}
        return runtime.call(self._execute, conf, environment)

    def remove(self) -> None:
        """Take the sandbox away without asking any plugin, as a crash does: processes, namespace and record."""
        kill_members([self.netns])
        netns.remove(self.netns)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def cni_environment(self) -> dict[str, str]:
        """The variables that containerd sends for this pod, without CNI_COMMAND."""
        args = (
            "IgnoreUnknown=1",
            "K8S_POD_NAMESPACE=default",
            f"K8S_POD_NAME={self.name}",
            f"K8S_POD_INFRA_CONTAINER_ID={self.container_id}",
            f"K8S_POD_UID={self._record.uid}",
            self._record.args,
        )
        return {
            "CNI_CONTAINERID": self.container_id,
            "CNI_NETNS": str(self.netns),
            "CNI_IFNAME": self._record.ifname,
            "CNI_PATH": runtime.search_path(str(self._plugins)),
            "CNI_ARGS": ";".join(filter(None, args)),
        }

    def _conf(self) -> Json:
        if self._record.conf is None:
            raise LabError(f"pod {self.name} was never added")
        return self._record.conf

    def _runtime_config(self) -> Json:
        return self._record.runtime_config or {}

    def _make(self) -> _Record:
        # 64 hexadecimal digits are what containerd and CRI-O call a sandbox.
        record = _Record(container_id=secrets.token_hex(32), uid=str(uuid.uuid4()))
        self.directory.mkdir(parents=True, exist_ok=True)
        netns.remove(self.netns)
        netns.create(self.netns, {})
        self._save(record)
        return record

    def _load(self) -> _Record:
        return _Record(**json.loads(self._file.read_bytes()))

    def _save(self, record: _Record) -> None:
        self._file.write_text(json.dumps(asdict(record)), encoding="utf-8")
        self._record = record
