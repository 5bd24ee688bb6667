"""What a test does with a host of the lab, whatever the host is made of: run commands, ping, fetch a page."""

import os
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cni_underlay.lab import netns
from cni_underlay.lab.errors import LabError
from cni_underlay.lab.process import Processes
from cni_underlay.records import IPAddress

_PAUSE = 0.1
_FETCH_WITHIN = 5.0


class Host(ABC):
    """Something with an address: a node, a VM of either kind, a router, a pod."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    @abstractmethod
    def addresses(self) -> tuple[IPAddress, ...]:
        """Its addresses, in the order of the topology or of the CNI result."""

    @property
    def address(self) -> IPAddress:
        """The first of its addresses, or `LabError` where it has none."""
        if not self.addresses:
            raise LabError(f"{self.name} has no address")
        return self.addresses[0]

    @abstractmethod
    def run(self, argv: Sequence[str], *, stdin: str = "", timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; `subprocess.TimeoutExpired` after `timeout` seconds."""

    def output(self, argv: Sequence[str], *, stdin: str = "", timeout: float = 30.0) -> str:
        """Standard output of a command that must succeed, or `LabError` with what it said."""
        done = self.run(argv, stdin=stdin, timeout=timeout)
        if done.returncode != 0:
            raise LabError(
                f"{self.name}: {' '.join(argv)}: status {done.returncode}: {done.stderr}{done.stdout}".strip()
            )
        return done.stdout

    def reaches(self, address: IPAddress | str, *, payload: int = 56) -> bool:
        """Whether one ping of `payload` bytes is answered within two seconds."""
        # -s counts payload only: 28 (IPv4) or 48 (IPv6) bytes of headers come on top.
        done = self.run(["ping", "-c", "1", "-W", "2", "-s", str(payload), str(address)])
        return done.returncode == 0

    def wait_until_reaches(self, address: IPAddress | str, *, within: float = 10.0) -> None:
        """Ping until it is answered, or `LabError` after `within` seconds."""
        deadline = time.monotonic() + within
        while not self.reaches(address):
            if time.monotonic() > deadline:
                raise LabError(f"{self.name} does not reach {address} within {within:g} s")
            time.sleep(_PAUSE)

    def fetch(self, address: IPAddress | str, *, port: int = 80) -> str:
        """The page an HTTP server has at /, or `LabError`."""
        place = f"[{address}]" if ":" in str(address) else str(address)
        # Not wget's own -T: with it busybox 1.35 crashes.
        argv = ["busybox", "wget", "-q", "-O", "-", f"http://{place}:{port}/"]
        try:
            return self.output(argv, timeout=_FETCH_WITHIN)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{self.name}: no answer from {argv[-1]} within {_FETCH_WITHIN:g} s") from error


class NamespaceHost(Host):
    """A host that is a network namespace of this machine."""

    def __init__(self, name: str, netns_path: Path, processes: Processes, directory: Path) -> None:
        super().__init__(name)
        self.netns = netns_path
        self.directory = directory
        self._processes = processes

    @property
    def environment(self) -> Mapping[str, str]:
        """What its commands find in their environment: this process's own, and what a subclass adds."""
        return dict(os.environ)

    def run(self, argv: Sequence[str], *, stdin: str = "", timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
        return self._processes.run(self.netns, argv, stdin=stdin, timeout=timeout, environment=self.environment)

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[str]:  # noqa: ANN401  # Popen's own
        """Start a command; it is killed when the lab goes down, if it runs until then."""
        return self._processes.open(self.netns, argv, **{"env": self.environment, **options})

    def serve_http(self, *, port: int = 80) -> None:
        """Serve the host's own name at /, on every address of both families, until the lab goes down."""
        pages = self.directory / "www"
        pages.mkdir(parents=True, exist_ok=True)
        (pages / "index.html").write_text(f"{self.name}\n", encoding="utf-8")
        server = ["busybox", "httpd", "-f", "-p", str(port), "-h", str(pages)]
        log = self.directory / "httpd.log"
        self._processes.start(f"httpd.{self.name}.{port}", self.netns, server, output=log, environment=self.environment)
        self.wait_until_listens(port)

    def wait_until_listens(self, port: int, *, within: float = 5.0) -> None:
        """Wait until something accepts TCP connections at `port`, or `LabError` after `within` seconds."""
        deadline = time.monotonic() + within
        while True:
            try:
                netns.inside(self.netns, lambda: socket.create_connection(("127.0.0.1", port))).close()
            except ConnectionRefusedError as error:
                if time.monotonic() > deadline:
                    raise LabError(f"{self.name}: nothing listens at port {port} within {within:g} s") from error
                time.sleep(_PAUSE / 20)
            else:
                return
