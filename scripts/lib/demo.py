"""The demonstration behind `scripts/demo`: build the lab, attach pods, show who reaches whom, take everything away.

With the argument `ipvlan` it shows ipvlan pods only, on whatever kernel it runs on: that is how the demonstration uses
the QEMU guest where this machine's kernel has no ipvlan.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from cni_underlay.lab.errors import LabError
from cni_underlay.lab.host import Host
from cni_underlay.lab.lab import Lab
from cni_underlay.lab.pod import Pod

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "conf/lab/demo.yaml"
IPVLAN = ROOT / "conf/lab/ipvlan.yaml"
IPVLAN_SECONDS = 90
_PODS = (("a", "web", "veth"), ("a", "shop", "macvlan"), ("b", "api", "veth"), ("b", "cart", "macvlan"))


def main() -> int:
    """Exit status 0 when everything reached everything."""
    started = time.monotonic()
    if sys.argv[1:] == ["ipvlan"]:
        return ipvlan_here()
    with ThreadPoolExecutor(1) as beside:
        guest = beside.submit(ipvlan)
        failures = underlay()
        heading("ipvlan")
        text, ipvlan_failures = guest.result()
        say(text)
    failures += ipvlan_failures
    say(
        f"\n{'everything reached everything' if not failures else f'{failures} FAILED'}, "
        f"in {time.monotonic() - started:.0f} s; nothing is left behind"
    )
    return 1 if failures else 0


def underlay() -> int:
    """Attach veth and macvlan pods on two nodes, between VMs of both kinds; returns how many attempts failed."""
    heading("the network: conf/lab/demo.yaml")
    with step("two nodes with agents, a VM, a QEMU guest, a router with a second subnet"):
        lab = Lab(DEMO)
        lab.up()
    try:
        return show(lab)
    finally:
        with step("taking it down"):
            lab.down()


def show(lab: Lab) -> int:
    """Attach the pods, print the matrix and the leases, detach the pods."""
    heading("pods, attached by executing the plugin as a runtime does")
    pods = [attach(lab, *place) for place in _PODS]
    heading("who reaches whom: ping IPv4, ping IPv6, HTTP by address")
    machines = [lab.vm("db"), lab.vm("legacy"), lab.vm("far")]
    failures = matrix([*machines, *lab.nodes], pods)
    failures += matrix(pods, [*machines, *lab.nodes, *pods])
    heading("underlayctl leases, on each node")
    for node in lab.nodes:
        say(node.output(["underlayctl", "leases"]).rstrip())
    heading("pods detached")
    for pod in pods:
        pod.delete()
    say(lab.node("a").output(["underlayctl", "pools"]).rstrip())
    return failures


def attach(lab: Lab, node: str, name: str, datapath: str) -> Pod:
    """ADD, and an HTTP server in the pod."""
    pod = lab.node(node).pod(name)
    start = time.perf_counter()
    pod.add(lab.node(node).conflist(datapath), args={"K8S_POD_NAMESPACE": "demo", "K8S_POD_NAME": name})
    milliseconds = (time.perf_counter() - start) * 1e3
    pod.serve_http()
    say(f"  {node}/{name:<5} {datapath:<8} {' '.join(map(str, pod.addresses)):<28} {milliseconds:5.1f} ms")
    return pod


def matrix(sources: Sequence[Host], targets: Sequence[Host]) -> int:
    """Print a row for each source; returns how many of the attempts failed."""
    width = max(len(source.name) for source in sources)
    say("  " + "from".ljust(width) + "".join(f"  {target.name:^8}" for target in targets))
    failures = 0
    with ThreadPoolExecutor(4) as executor:
        for source in sources:
            cells = list(executor.map(lambda target, source=source: cell(source, target), targets))
            failures += sum(text.count("-") for text in cells)
            say("  " + source.name.ljust(width) + "".join(f"  {text:^8}" for text in cells))
    return failures


def cell(source: Host, target: Host) -> str:
    """`4 6 h` for ping over IPv4, over IPv6, and HTTP; a dash for what failed, a dot where nothing serves HTTP."""
    if source is target:
        return "."
    marks = ["4" if version == "4" else "6" for version in ("4", "6")]
    for index, address in enumerate(target.addresses[:2]):
        if not source.reaches(address):
            marks[index] = "-"
    return " ".join([*marks, fetched(source, target)])


def fetched(source: Host, target: Host) -> str:
    """Whether the page that the target serves is its own."""
    if not serves(target):
        return "."
    try:
        return "h" if source.fetch(target.address).strip().endswith(target.name) else "-"
    except LabError:
        return "-"


def serves(host: Host) -> bool:
    """Nodes have no HTTP server in this lab."""
    return not hasattr(host, "agent")


def ipvlan() -> tuple[str, int]:
    """The ipvlan part, in the QEMU guest where this kernel cannot make such links."""
    where = "on this machine's kernel"
    command = [sys.executable, __file__, "ipvlan"]
    if not kernel_has_ipvlan():
        where = "in a QEMU guest, because this machine's kernel has no ipvlan"
        command = [
            sys.executable,
            "-m",
            "cni_underlay.lab.guest",
            "run",
            "--timeout",
            str(IPVLAN_SECONDS),
            "--",
            *command,
        ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    text = f"  {where}:\n{done.stdout.rstrip()}"
    if done.returncode != 0:
        return f"{text}\n{done.stderr.rstrip()}\n  FAILED", 1
    return text, 0


def ipvlan_here() -> int:
    """A pod in each ipvlan mode that shares a segment, from and to the VM and the node."""
    lab = Lab(IPVLAN)
    lab.up()
    try:
        pods = [attach(lab, "c", name, "ipvlan") for name in ("one", "two")]
        failures = matrix([lab.vm("db"), lab.node("c")], pods)
        return 1 if failures + matrix(pods, [lab.vm("db"), lab.node("c"), *pods]) else 0
    finally:
        lab.down()


def kernel_has_ipvlan() -> bool:
    """Ask the kernel, in a namespace of its own."""
    if shutil.which("unshare") is None:
        return False
    probe = "ip link add d0 type veth peer name d1 && ip link add link d0 name i0 type ipvlan"
    return subprocess.run(["unshare", "-n", "sh", "-c", probe], capture_output=True, check=False).returncode == 0


@contextmanager
def step(text: str) -> Iterator[None]:
    """Say what takes time, and how much it took."""
    start = time.monotonic()
    yield
    say(f"  {text}: {time.monotonic() - start:.1f} s")


def heading(text: str) -> None:
    """A blank line and the text."""
    say(f"\n== {text}")


def say(*lines: Iterable[str] | str) -> None:
    """Print at once, also into a pipe."""
    print(*lines, flush=True)  # this program's purpose


if __name__ == "__main__":
    sys.exit(main())
