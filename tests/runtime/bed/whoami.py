"""A page that says who serves and who asks: the peer's address is the proof that nothing on the way rewrote it."""

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Self

from cni_underlay.lab.host import Host, NamespaceHost
from cni_underlay.records import IPAddress

# busybox httpd runs this program for "/" where there is no index.html.
WHOAMI_PATH = "cgi-bin/index.cgi"
WHOAMI = """#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
echo "$(hostname) $REMOTE_ADDR"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What the server saw: its own host name, and the address that the request came from."""

    host: str
    peer: IPAddress

    @classmethod
    def parse(cls, page: str) -> Self:
        """Read the page; an IPv4 peer of a server that listens on both families arrives as ::ffff:a.b.c.d."""
        host, peer = page.split()
        address = ip_address(peer.strip("[]"))
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return cls(host=host, peer=mapped or address)


def visit(client: Host, address: IPAddress | str, port: int = 80) -> Visit:
    """Fetch the page from one of the lab's hosts."""
    return Visit.parse(client.fetch(address, port=port))


def serve(host: NamespaceHost, directory: Path, port: int) -> None:
    """Serve the page on a host of the lab, until the lab goes down."""
    program = directory / WHOAMI_PATH
    program.parent.mkdir(parents=True)
    program.write_text(WHOAMI)
    program.chmod(0o755)
    host.popen(["busybox", "httpd", "-f", "-p", str(port), "-h", str(directory)])
    host.wait_until_listens(port)
