"""Labs from the shell; see `scripts/lab --help`."""

import argparse
import fcntl
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from cni_underlay.lab import netns, registry
from cni_underlay.lab.errors import LabError
from cni_underlay.lab.guest_vm import GuestVm
from cni_underlay.lab.host import NamespaceHost
from cni_underlay.lab.lab import Lab, demolish, sweep
from cni_underlay.lab.node import Node
from cni_underlay.lab.process import tail
from cni_underlay.lab.status import status, table
from cni_underlay.lab.topology_file import load

_EPILOG = """LAB is a topology file, or a lab's id as `list` shows it. In `exec`, HOST may be NODE/POD."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    # `up` undoes itself when it is asked to stop, as it does on Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab", description="Underlay networks in network namespaces.", epilog=_EPILOG)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, epilog=_EPILOG)
        added.set_defaults(run=run)
        return added

    up = command("up", _up, "build the lab of a topology file; it stays until `down`")
    up.add_argument("file", metavar="FILE", type=Path)
    for name, run, text in (
        ("down", _down, "take a lab away, also a half-made one; succeeds where there is none"),
        ("status", _status, "show its hosts and pods"),
        ("exec", _exec, "run a command in a host"),
        ("logs", _logs, "show what a node's agent or a guest's console said last"),
        ("add-pod", _add_pod, "make a sandbox on a node and call ADD with the real client"),
        ("del-pod", _del_pod, "call DEL and take the sandbox away"),
    ):
        command(name, run, text).add_argument("lab", metavar="LAB")
    commands.choices["status"].add_argument("-o", "--output", choices=("table", "json"), default="table")
    commands.choices["exec"].add_argument("-i", "--stdin", action="store_true", help="also pass a guest standard input")
    commands.choices["exec"].add_argument("host", metavar="HOST")
    commands.choices["exec"].add_argument("argv", metavar="CMD", nargs="+", help="the command, after --")
    commands.choices["logs"].add_argument("host", metavar="HOST")
    for name in ("add-pod", "del-pod"):
        commands.choices[name].add_argument("node", metavar="NODE")
        commands.choices[name].add_argument("pod", metavar="POD")
    what = commands.choices["add-pod"].add_mutually_exclusive_group()
    what.add_argument("--conf", type=Path, metavar="CONFLIST", help="a network configuration or a list of them")
    what.add_argument("--datapath", choices=("veth", "macvlan", "ipvlan"), default="veth", help="with the node's pools")
    command("list", _list, "show every lab on this machine")
    command("sweep", _sweep, "take down the labs of tests that were killed")
    return parser


def _up(options: argparse.Namespace) -> int:
    topology = load(options.file)
    # Two that start at once must see each other: the file itself is what they have in common.
    with options.file.open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if existing := registry.find(str(options.file)):
            raise LabError(f"{options.file} is up already as {existing[0].id}: run `down` first")
        lab = Lab(topology)
        lab.up(source=options.file)
    print(f"lab {lab.id} is up in {lab.directory}")
    return 0


def _down(options: argparse.Namespace) -> int:
    for directory in registry.find(options.lab):
        demolish(directory)
        print(f"lab {directory.id} is gone")
    registry.tidy()
    return 0


def _status(options: argparse.Namespace) -> int:
    report = status(_attach(options))
    print(json.dumps(report, indent=2) if options.output == "json" else table(report))
    return 0


def _exec(options: argparse.Namespace) -> int:
    host = _attach(options).host(options.host)
    if isinstance(host, NamespaceHost):
        netns.enter_forever(host.netns)
        try:
            os.execvpe(options.argv[0], options.argv, dict(host.environment))  # noqa: S606  # no shell is the point
        except OSError as error:
            raise LabError(f"{options.argv[0]}: {error.strerror}") from error
    stdin = sys.stdin.read() if options.stdin else ""
    done = host.run(options.argv, stdin=stdin, timeout=3600.0)
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    return done.returncode


def _logs(options: argparse.Namespace) -> int:
    host = _attach(options).host(options.host)
    if isinstance(host, Node):
        print(tail(host.agent.log, 200))
    elif isinstance(host, GuestVm):
        print(host.console())
    else:
        raise LabError(f"{options.host} keeps no log")
    return 0


def _add_pod(options: argparse.Namespace) -> int:
    node = _attach(options).node(options.node)
    conf = _read_conf(options.conf) if options.conf else node.conflist(options.datapath)
    print(json.dumps(node.pod(options.pod).add(conf), indent=2))
    return 0


def _del_pod(options: argparse.Namespace) -> int:
    node = _attach(options).node(options.node)
    node.existing_pod(options.pod).delete()
    node.remove_pod(options.pod)
    return 0


def _list(_options: argparse.Namespace) -> int:
    for directory in registry.labs():
        print(directory.id, directory.source or f"(of process {directory.owner.pid if directory.owner else '?'})")
    return 0


def _sweep(_options: argparse.Namespace) -> int:
    for identity in sweep():
        print(f"lab {identity} is gone")
    return 0


def _attach(options: argparse.Namespace) -> Lab:
    found = registry.find(options.lab)
    if len(found) != 1:
        known = ", ".join(lab.id for lab in found or registry.labs()) or "none"
        raise LabError(f"{options.lab}: {len(found)} labs run of it; the labs are: {known}")
    return Lab.attach(found[0])


def _read_conf(path: Path) -> dict[str, object]:
    try:
        conf = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise LabError(f"{path}: {error}") from error
    if not isinstance(conf, dict):
        raise LabError(f"{path}: not a JSON object")
    return conf


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        sys.exit(main())
