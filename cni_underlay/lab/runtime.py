"""What a container runtime does with a network configuration, as far as a lab needs it: libcni's chain of plugins."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cni_underlay.lab.errors import CniError, LabError

Json = dict[str, Any]
# (argv, CNI_ environment, standard input) -> the finished process, executed in the node's namespace.
Execute = Callable[[Sequence[str], Mapping[str, str], str], subprocess.CompletedProcess[str]]

_CNI_VERSION = "1.1.0"


def conflist(
    datapath: str, pools: Sequence[str] = (), options: Mapping[str, object] | None = None, *, network: str = "underlay"
) -> Json:
    """A configuration list with this plugin alone; `options` are further keys of its configuration (`mode`, `mtu`)."""
    ipam = {"type": "underlay-ipam", "pools": list(pools)}
    return {
        "cniVersion": _CNI_VERSION,
        "name": network,
        "plugins": [{"type": "underlay", "datapath": datapath, **(options or {}), "ipam": ipam}],
    }


def add(execute: Execute, conf: Json, environment: Mapping[str, str], runtime_config: Json) -> Json:
    """ADD through the whole list; the last plugin's result. Raises `CniError` of the first that fails."""
    result: Json | None = None
    for plugin in _chain(conf, runtime_config):
        request = plugin if result is None else {**plugin, "prevResult": result}
        result = _answer(call(execute, request, {**environment, "CNI_COMMAND": "ADD"}))
    return result or {}


def check(execute: Execute, conf: Json, environment: Mapping[str, str], runtime_config: Json, result: Json) -> None:
    """CHECK through the whole list against an ADD's result."""
    for plugin in _chain(conf, runtime_config):
        request = {**plugin, "prevResult": result}
        _require_success(call(execute, request, {**environment, "CNI_COMMAND": "CHECK"}))


def delete(
    execute: Execute, conf: Json, environment: Mapping[str, str], runtime_config: Json, result: Json | None
) -> None:
    """DEL through the list backwards, with the ADD's result where one is known."""
    for plugin in reversed(_chain(conf, runtime_config)):
        request = plugin if result is None else {**plugin, "prevResult": result}
        _require_success(call(execute, request, {**environment, "CNI_COMMAND": "DEL"}))


def search_path(first: str) -> str:
    """CNI_PATH: the lab's own plugins, then Debian's (containernetworking-plugins)."""
    return f"{first}:/usr/lib/cni:/opt/cni/bin"


def _chain(conf: Json, runtime_config: Json) -> list[Json]:
    plugins = conf.get("plugins", [conf])
    return [_derive(conf, plugin, runtime_config) for plugin in plugins]


def _derive(conf: Json, plugin: Json, runtime_config: Json) -> Json:
    """The configuration of one plugin of the list (specification, section 3, "Deriving configuration")."""
    kept = {key: value for key, value in plugin.items() if key != "capabilities"}
    asked = {key for key, wanted in plugin.get("capabilities", {}).items() if wanted}
    capabilities = {key: value for key, value in runtime_config.items() if key in asked}
    derived = {**kept, "cniVersion": conf.get("cniVersion", _CNI_VERSION), "name": conf.get("name", "")}
    return {**derived, "runtimeConfig": capabilities} if capabilities else derived


def call(execute: Execute, conf: Json, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """One call of one plugin with a configuration taken as it is, right or wrong."""
    plugin = shutil.which(os.path.basename(str(conf.get("type", ""))), path=environment["CNI_PATH"])  # noqa: PTH119
    if plugin is None:
        raise LabError(f"no plugin {conf.get('type')!r} in {environment['CNI_PATH']}")
    return execute([plugin], environment, json.dumps(conf))


def _require_success(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode == 0:
        return
    try:
        error = json.loads(done.stdout)
        raise CniError(int(error["code"]), " ".join(filter(None, (error.get("msg"), error.get("details")))))
    except (ValueError, KeyError, TypeError) as error:
        raise CniError(0, f"status {done.returncode}, no error object: {done.stdout!r} {done.stderr!r}") from error


def _answer(done: subprocess.CompletedProcess[str]) -> Json:
    _require_success(done)
    try:
        result: Json = json.loads(done.stdout)
    except ValueError as error:
        raise CniError(0, f"success, but no JSON: {done.stdout!r} {done.stderr!r}") from error
    return result
