"""Network namespaces with private names: made, entered by one thread, read back by `ip -j`, removed."""

import ctypes
import json
import os
import re
import secrets
import subprocess
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from .kinds import Json, Option

_T = TypeVar("_T")
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

DIRECTORY = Path("/run/netns")
_ANY_FAMILY = ("addr show",)
_EACH_FAMILY = ("route show table all", "rule show", "neigh show", "neigh show proxy")
# What changes by itself while nobody touches anything.
_RESTLESS = {
    *("operstate", "promiscuity", "allmulti", "tentative", "expires", "valid_life_time", "preferred_life_time"),
    *("handle", "hello_timer", "tcn_timer", "topology_change_timer", "gc_timer", "topology_change"),
}
# What ip(8) calls a link that went between two of its questions.
_DYING = re.compile(r"if[0-9]+")
_RESTLESS_FLAGS = {"LOWER_UP", "NO-CARRIER", "linkdown", "dead"}


def unique(kind: str) -> str:
    """A name that nobody else on this machine has, short enough for an interface."""
    return f"uc{kind}{secrets.token_hex(4)}"


def inside(path: str | Path, action: Callable[[], _T]) -> _T:
    """The value of `action`, called by a thread of its own that has entered the namespace; what it raises is raised."""
    outcome: list[_T] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"setns {path}")
            finally:
                os.close(descriptor)
            outcome.append(action())
        except BaseException as error:  # noqa: BLE001  # carried to the caller's thread
            failure.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


@dataclass(slots=True)
class Namespace:
    """A namespace that this suite made."""

    name: str = field(default_factory=lambda: unique("n"))

    @property
    def path(self) -> str:
        return str(DIRECTORY / self.name)

    def create(self) -> "Namespace":
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self.configure("link set lo up")
        return self

    def remove(self) -> None:
        """No effect where it is gone already."""
        if Path(self.path).exists():
            subprocess.run(["ip", "netns", "delete", self.name], check=True)

    def configure(self, *lines: str) -> None:
        """Carry out lines of ip(8); the first failure raises."""
        done = subprocess.run(
            ["ip", "-n", self.name, "-batch", "-"],
            input="\n".join(lines) + "\n",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{lines}: {done.stderr}"

    def ip(self, *words: str) -> list[dict[str, Any]]:
        """What `ip -j` says; options such as -6 come first."""
        options = [word for word in words if word.startswith("-")]
        rest = [word for word in words if not word.startswith("-")]
        done = subprocess.run(
            ["ip", "-n", self.name, "-j", *options, *rest], capture_output=True, text=True, check=True
        )
        return [entry for entry in json.loads(done.stdout or "[]") if entry]

    def link(self, ifname: str) -> dict[str, Any] | None:
        """The link with its addresses and details, or None."""
        return next((link for link in self.ip("-d", "addr", "show") if link["ifname"] == ifname), None)

    def addresses(self, ifname: str) -> set[str]:
        """The global addresses of the link, with their prefix lengths."""
        link = self.link(ifname) or {}
        return {
            f"{entry['local']}/{entry['prefixlen']}"
            for entry in link.get("addr_info", ())
            if entry.get("scope") == "global"
        }

    def links(self) -> set[str]:
        return {link["ifname"] for link in self.ip("link", "show")}

    def run(self, *command: str, **options: Option) -> "subprocess.CompletedProcess[str]":
        """Run to the end inside; output is captured as text."""
        return inside(
            self.path, lambda: subprocess.run(command, capture_output=True, text=True, check=False, **options)
        )

    def spawn(self, command: list[str], **options: Option) -> "subprocess.Popen[bytes]":
        return inside(self.path, lambda: subprocess.Popen(command, **options))

    def reaches(self, address: str) -> bool:
        """Whether an echo request is answered within a second: the first one is the only one."""
        return self.run("ping", "-n", "-c1", "-W1", address).returncode == 0

    def state(self) -> dict[str, Any]:
        """What a plugin could change here: links, addresses, routes of all tables, rules, neighbours, nftables."""
        ruleset = self.run("nft", "-j", "list", "ruleset").stdout
        return {
            "links": _sorted(self._batch(["-d"], _ANY_FAMILY)[0]),
            **self._family("-4"),
            **self._family("-6"),
            "nftables": _settled(json.loads(ruleset)["nftables"][1:]),
        }

    def _family(self, option: str) -> dict[str, Any]:
        routes, rules, neighbours, proxied = self._batch([option, "-d"], _EACH_FAMILY)
        return {
            f"{option} routes": _sorted(route for route in routes if not _DYING.fullmatch(route.get("dev", ""))),
            f"{option} rules": _sorted(rules),
            f"{option} neighbours": _sorted(entry for entry in neighbours if "PERMANENT" in entry.get("state", ())),
            f"{option} proxied": _sorted(proxied),
        }

    def _batch(self, options: list[str], lines: Iterable[str]) -> list[list[dict[str, Any]]]:
        command = ["ip", "-n", self.name, "-j", *options, "-batch", "-"]
        done = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True, check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]


class Pod(Namespace):
    """A sandbox: a namespace and the id that the runtime gave it."""

    def __init__(self) -> None:
        super().__init__()
        self.container = secrets.token_hex(32)


def difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, dict[str, list[Any]]]:
    """What went and what came between two states, by part; empty when they are the same."""
    parts = {}
    for part in before | after:
        old, new = before.get(part, []), after.get(part, [])
        changes = {
            "gone": [entry for entry in old if entry not in new],
            "new": [entry for entry in new if entry not in old],
        }
        if any(changes.values()):
            parts[part] = changes
    return parts


def _sorted(entries: Iterable[dict[str, Any]]) -> list[Any]:
    return sorted(map(_settled, filter(None, entries)), key=lambda entry: json.dumps(entry, sort_keys=True))


def _settled(value: Json) -> Json:
    """`value` without what is restless; nftables' handles are, as they count up for ever."""
    if isinstance(value, dict):
        return {key: _settled(item) for key, item in value.items() if key not in _RESTLESS}
    if isinstance(value, list):
        return [_settled(item) for item in value if not (isinstance(item, str) and item in _RESTLESS_FLAGS)]
    return value
