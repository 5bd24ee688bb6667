"""underlayctl: what node admins type."""

import sys
from importlib.metadata import version as distribution_version
from pathlib import Path

import click

from cni_underlay.agent.config import DEFAULT_CONFIG
from cni_underlay.cli import tables
from cni_underlay.cli.source import Source, locate
from cni_underlay.errors import UnderlayError

_OUTPUT = click.option(
    "-o", "--output", type=click.Choice(tables.FORMATS), default="table", show_default=True, help="How to print."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config", type=click.Path(path_type=Path), default=DEFAULT_CONFIG, show_default=True, help="agent.yaml."
)
@click.option("--socket", "socket_path", type=click.Path(path_type=Path), help="The agent's socket.")
@click.pass_context
def cli(context: click.Context, config: Path, socket_path: Path | None) -> None:
    """Inspect the addresses of this node, and install the plugin on it."""
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
    """How full each pool is on this node."""
    rows, note = source.ask("pools")
    _print(tables.render(rows, tables.POOLS, output), note)


@cli.command()
@click.argument("address")
@_OUTPUT
@click.pass_obj
def history(source: Source, address: str, output: str) -> None:
    """What happened to an address: who had it, from when to when, and how it left."""
    rows, note = source.ask("history", address=address)
    _print(tables.render(rows, tables.HISTORY, output), note)


@cli.command()
@click.pass_obj
def version(source: Source) -> None:
    """The versions of this command and of the agent."""
    click.echo(f"underlayctl {distribution_version('cni-underlay')}")
    document, _note = source.ask("version")
    click.echo(f"underlayd   {document['agent']} (node {document['node']})")


def _print(text: str, note: str) -> None:
    click.echo(text)
    if note:
        click.echo(f"underlayctl: {note}", err=True)


def main() -> None:
    """Entry point: every failure is one line on standard error and exit status 1."""
    try:
        cli(prog_name="underlayctl")
    except UnderlayError as error:
        details = f" ({error.details})" if error.details else ""
        sys.exit(f"underlayctl: {error}{details}")
