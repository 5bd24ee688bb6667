"""agent.yaml and pools.d: read whole, checked whole, and only then used."""

import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import yaml

from cni_underlay.errors import InvalidConfigError
from cni_underlay.ipam.pools import parse_duration, pools_from_documents
from cni_underlay.plugin.services import Settings

DEFAULT_CONFIG = Path("/etc/cni-underlay/agent.yaml")
DEFAULT_SOCKET = Path("/run/cni-underlay/agent.sock")
DEFAULT_STATE_DIR = Path("/var/lib/cni-underlay")
DEFAULT_HTTP = "127.0.0.1:9177"
_KEYS = ("node", "socket", "state_dir", "http", "log_level", "quarantine", "floor", "exhausted_is_not_ready", "pools")
_FIXED_KEYS = ("socket", "state_dir", "http", "log_level")
_LEVELS = ("debug", "info", "warning", "error")
_NODE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?", re.ASCII)  # the kernel allows underscores
_HTTP = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<v4>[0-9.]+)|localhost):(?P<port>[0-9]{1,5})", re.ASCII)
_HIGHEST_PORT = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """Everything of agent.yaml. A reload takes `settings` only; the rest needs a restart. `http` None: not served."""

    socket: Path
    state_dir: Path
    http: tuple[str, int] | None
    log_level: str
    settings: Settings

    @property
    def ledger(self) -> Path:
        """The SQLite file."""
        return self.state_dir / "ledger.db"

    def lost_ledgers(self) -> list[Path]:
        """Ledgers that the store put aside because they were damaged, and that nobody has removed since."""
        return sorted(self.state_dir.glob("ledger.damaged-*.db"))

    @property
    def spool(self) -> Path:
        """Where clients leave DELs that found no agent."""
        return self.socket.parent / "spool"

    def fixed_differences(self, fresh: "AgentConfig") -> list[str]:
        """The keys that `fresh` has otherwise and that only a restart can change."""
        return [key for key in _FIXED_KEYS if getattr(self, key) != getattr(fresh, key)]


def load(path: Path) -> AgentConfig:
    """The configuration of `path` and of pools.d beside it; raises `InvalidConfigError` naming file, key and value.

    A missing default file means the defaults: such an agent serves inline ranges.
    """
    document = _read(path) if path.exists() or path != DEFAULT_CONFIG else {}
    if not isinstance(document, Mapping):
        raise InvalidConfigError(f"{path}: a mapping of keys is expected, not {type(document).__name__}")
    for key in document:
        if key not in _KEYS:
            raise InvalidConfigError(f"{path}: unknown key {key!r}; known are {', '.join(_KEYS)}")
    document = {key: value for key, value in document.items() if value is not None}  # a key whose lines are comments
    try:
        return AgentConfig(
            socket=_path(document, "socket", DEFAULT_SOCKET),
            state_dir=_path(document, "state_dir", DEFAULT_STATE_DIR),
            http=_http(document.get("http", DEFAULT_HTTP)),
            log_level=_choice(document, "log_level", _LEVELS, "info"),
            settings=_settings(path, document),
        )
    except InvalidConfigError as error:
        if str(path) in str(error) or "pools.d" in str(error):
            raise
        raise InvalidConfigError(f"{path}: {error}", error.details) from error


def _read(path: Path) -> Any:  # noqa: ANN401  # a YAML document is anything
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        with path.open("rb") as stream:
            return yaml.load(stream, Loader=loader) or {}  # noqa: S506  # a safe loader, in C where it exists
    except OSError as error:
        raise InvalidConfigError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error


def _settings(path: Path, document: Mapping[str, Any]) -> Settings:
    quarantine = parse_duration(document.get("quarantine", 120), "quarantine")
    floor = parse_duration(document.get("floor", min(30.0, quarantine)), "floor")
    if floor > quarantine:
        raise InvalidConfigError(f"floor: {floor:g} s is longer than the quarantine of {quarantine:g} s")
    sources = [(str(path), {"pools": document.get("pools", [])})]
    extras = sorted((path.parent / "pools.d").glob("[!.]*.yaml"))  # editors keep locks and copies in dot files
    sources += [(str(extra), _read(extra)) for extra in extras]
    return Settings(
        node=_node(document.get("node")),
        pools=pools_from_documents(sources, quarantine=quarantine, floor=floor),
        quarantine=quarantine,
        floor=floor,
        exhausted_is_not_ready=_flag(document, "exhausted_is_not_ready"),
    )


def _node(value: object) -> str:
    name = os.environ.get("NODE_NAME", "") or socket.gethostname() if value is None else value
    if not isinstance(name, str) or not _NODE.fullmatch(name):
        raise InvalidConfigError(f"node: {name!r} is not a host name; write letters, digits, dots, hyphens")
    return name


def _path(document: Mapping[str, Any], key: str, default: Path) -> Path:
    value = document.get(key, str(default))
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise InvalidConfigError(f"{key}: {value!r} is not an absolute path")
    return Path(value)


def _choice(document: Mapping[str, Any], key: str, choices: tuple[str, ...], default: str) -> str:
    value = document.get(key, default)
    if value not in choices:
        raise InvalidConfigError(f"{key}: {value!r} is none of {', '.join(choices)}")
    return str(value)


def _flag(document: Mapping[str, Any], key: str) -> bool:
    value = document.get(key, False)
    if not isinstance(value, bool):
        raise InvalidConfigError(f"{key}: {value!r} is neither true nor false")
    return value


def _http(value: object) -> tuple[str, int] | None:
    """Host and port. A name would have to be resolved, and the agent may be what makes the network work."""
    if value is False or value == "":
        return None
    match = _HTTP.fullmatch(value) if isinstance(value, str) else None
    if match is not None and int(match["port"]) <= _HIGHEST_PORT:
        with suppress(ValueError):
            return str(ip_address(match["v6"] or match["v4"] or "127.0.0.1")), int(match["port"])
    raise InvalidConfigError(f"http: {value!r} is not ADDRESS:PORT; write for example {DEFAULT_HTTP}, or false")
