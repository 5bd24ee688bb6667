"""underlayctl: what node admins type."""

import os
import sys
from importlib.metadata import version as distribution_version
from pathlib import Path

import click

from cni_underlay.agent.config import DEFAULT_CONFIG
from cni_underlay.cli import install as installing
from cni_underlay.cli import tables
from cni_underlay.cli.install import BIN_DIR, CONF_DIR, Change, Foreign
from cni_underlay.cli.source import AgentUnreachableError, Source, locate
from cni_underlay.errors import UnderlayError

_PATH = click.Path(path_type=Path)
_OUTPUT = click.option(
    "-o", "--output", type=click.Choice(tables.FORMATS), default="table", show_default=True, help="How to print."
)
_BIN_DIR = click.option("--bin-dir", type=_PATH, default=BIN_DIR, show_default=True, help="CNI plugins of the runtime.")
_CONF_DIR = click.option("--conf-dir", type=_PATH, default=CONF_DIR, show_default=True, help="Its networks.")
_CONFLIST = click.option("--conflist", type=_PATH, help="Your own network configuration instead of the default one.")
_FORCE = click.option(
    "--force", is_flag=True, help="Also replace or remove files that are not as this command made them."
)
_KEEP = click.option("--keep", is_flag=True, help="Leave a changed network configuration alone, and do the rest.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", type=_PATH, default=DEFAULT_CONFIG, show_default=True, help="agent.yaml.")
@click.option(
    "--socket", "socket_path", type=_PATH, help="The agent's socket [default: UNDERLAY_SOCKET, or agent.yaml's]."
)
@click.pass_context
def cli(context: click.Context, config: Path, socket_path: Path | None) -> None:
    """Inspect the addresses of this node, and install the plugin on it.

    Without an agent the ledger itself is read, and standard error says so. Exit status: 0 success, 1 failure (one line
    on standard error says why), 2 wrong arguments.
    """
    if context.invoked_subcommand not in ("install", "uninstall"):
        context.obj = locate(config, socket_path)


@cli.command()
@_OUTPUT
@click.pass_obj
def leases(source: Source, output: str) -> None:
    """Who has which address on this node."""
    rows, note = source.ask("leases")
    _print(tables.render(rows, tables.LEASES_WIDE if output == "wide" else tables.LEASES, output), note)


@cli.command()
@_OUTPUT
@click.pass_obj
def pools(source: Source, output: str) -> None:
    """How full each pool is on this node, counted in addresses."""
    rows, note = source.ask("pools")
    _print(tables.render(rows, tables.POOLS, output), note)


@cli.command()
@click.argument("address")
@_OUTPUT
@click.pass_obj
def history(source: Source, address: str, output: str) -> None:
    """What happened to an address: who had it, from when to when, and how it left."""
    rows, note = source.ask("history", address=address)
    _print(tables.render(rows, tables.HISTORY_WIDE if output == "wide" else tables.HISTORY, output), note)


@cli.command()
@_OUTPUT
@click.pass_obj
def version(source: Source, output: str) -> None:
    """The versions of this command and of the agent."""
    own = {"program": "underlayctl", "version": distribution_version("cni-underlay"), "node": ""}
    try:
        agent, note = source.ask("version")
        rows = [own, {"program": "underlayd", "version": agent["agent"], "node": agent["node"]}]
    except AgentUnreachableError as error:
        rows, note = [own], str(error)
    _print(tables.render(rows, tables.VERSION, output), note)


@cli.command()
@_BIN_DIR
@_CONF_DIR
@_CONFLIST
@_KEEP
@_FORCE
def install(bin_dir: Path, conf_dir: Path, conflist: Path | None, *, keep: bool, force: bool) -> None:
    """Put the plugin on this node: both binaries, then the network configuration.

    May be repeated at any time, also while pods start. One line for each file says what became of it. Exit status: 0
    when all is in place, 1 when the node refuses or somebody else's file is in the way, 2 for wrong arguments.
    """
    _report(installing.install(bin_dir, conf_dir, conflist=conflist, foreign=_foreign(keep=keep, force=force)))


@cli.command()
@_BIN_DIR
@_CONF_DIR
@_CONFLIST
@_KEEP
@_FORCE
def uninstall(bin_dir: Path, conf_dir: Path, conflist: Path | None, *, keep: bool, force: bool) -> None:
    """Take the plugin off this node: the network configuration, then both binaries. Running pods stay as they are.

    Exit status: 0 when it is gone, or was never there, 1 when the node refuses or the configuration was changed, 2 for
    wrong arguments.
    """
    _report(installing.uninstall(bin_dir, conf_dir, conflist=conflist, foreign=_foreign(keep=keep, force=force)))


def _foreign(*, keep: bool, force: bool) -> Foreign:
    if keep and force:
        raise click.UsageError("--keep and --force exclude each other")
    if force:
        return Foreign.REPLACE
    return Foreign.KEEP if keep else Foreign.REFUSE


def _report(changes: list[Change]) -> None:
    for change in changes:
        click.echo(str(change))


def _print(text: str, note: str) -> None:
    click.echo(text)
    if note:
        click.echo(f"underlayctl: {note}", err=True)


def main() -> None:
    """Entry point: every failure is one line on standard error and exit status 1, or 2 for wrong arguments."""
    try:
        sys.exit(cli.main(prog_name="underlayctl", standalone_mode=False))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        click.echo(f"underlayctl: {' '.join(error.format_message().split())}", err=True)
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(1)
    except UnderlayError as error:
        details = f" ({error.details})" if error.details else ""
        sys.exit(f"underlayctl: {error}{details}")
    except BrokenPipeError:
        # The reader (head, less) has seen enough; the interpreter must not find that out once more while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
