"""underlayd: open the ledger, make it agree with the kernel, and serve until told to stop."""

import argparse
import gc
import signal
import sys
import threading
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cni_underlay.agent import admin, config, log, notify
from cni_underlay.agent.clock import Clock
from cni_underlay.agent.config import AgentConfig
from cni_underlay.agent.handler import Handler
from cni_underlay.agent.log import LOGGER
from cni_underlay.agent.recovery import recover
from cni_underlay.agent.server import Server, listen
from cni_underlay.agent.spool import Spool
from cni_underlay.datapath import KernelDatapath
from cni_underlay.errors import UnderlayError
from cni_underlay.plugin.services import Services
from cni_underlay.store.sqlite import SQLiteStore

STOP_SECONDS = 20.0  # systemd waits 90 s by default; a DEL takes 20 ms, a delegate up to 45 s
TIDY_SECONDS = 0.2  # marks of finished ADDs are at most this long in memory only


def main() -> None:
    """Entry point of `underlayd` and `python -m cni_underlay.agent`."""
    parser = argparse.ArgumentParser(prog="underlayd", description="The node agent of cni-underlay.")
    parser.add_argument("--config", type=Path, default=config.DEFAULT_CONFIG, help="agent.yaml (default: %(default)s)")
    parser.add_argument("--version", action="version", version=f"underlayd {version('cni-underlay')}")
    arguments = parser.parse_args()
    try:
        settings = config.load(arguments.config)
        log.configure(settings.log_level)
        _Agent(arguments.config, settings).run()
    except UnderlayError as error:
        details = f" ({error.details})" if error.details else ""
        sys.exit(f"underlayd: {error}{details}")


class _Agent:
    """One run of the agent, from start to stop."""

    def __init__(self, path: Path, configuration: AgentConfig) -> None:
        self._path = path
        self._configuration = configuration
        self._wake = threading.Event()
        self._reload = False
        self._stop = False

    def run(self) -> None:
        """Return after a graceful stop."""
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)
        clock = Clock()
        with ExitStack() as stack:
            store = SQLiteStore(self._configuration.ledger, clock())
            stack.callback(store.close)
            datapath = KernelDatapath(log=LOGGER)
            stack.callback(datapath.close)
            services = Services(store=store, datapath=datapath, settings=self._configuration.settings, clock=clock)
            listener = notify.inherited_listener() or listen(self._configuration.socket)
            stack.callback(listener.close)
            handler = Handler(services, admin.Desk(services).answer)
            spool = Spool(self._configuration.spool, handler.handle)
            handler.before_add = lambda: spool.replay() and None if spool.changed() else None
            self._recover(services, spool)
            server = Server(listener, handler)
            _settle_memory()
            server.serve()
            notify.ready(listener)
            LOGGER.info("serving", extra={"socket": str(self._configuration.socket), "node": services.settings.node})
            self._wait(services, store, spool)
            notify.notify("STOPPING=1")
            if not server.stop(STOP_SECONDS):
                LOGGER.warning("requests were still at work when the agent stopped")
        LOGGER.info("stopped")

    def _recover(self, services: Services, spool: Spool) -> None:
        recovered = recover(services)
        replayed = spool.replay()
        LOGGER.info(
            "recovered",
            extra={
                "leases": recovered.leases,
                "other_boot": recovered.other_boot,
                "completed": recovered.completed,
                "undone": recovered.undone,
                "swept": list(recovered.swept),
                "replayed": replayed,
            },
        )

    def _wait(self, services: Services, store: SQLiteStore, spool: Spool) -> None:
        while not self._stop:
            self._wake.wait(TIDY_SECONDS)
            self._wake.clear()
            if self._reload:
                self._reload = False
                self._reload_settings(services)
            try:
                store.tidy(services.clock())
            except UnderlayError as error:
                LOGGER.error("the ledger cannot be tidied", extra={"error": str(error)})  # noqa: TRY400
            if spool.changed():
                spool.replay()

    def _reload_settings(self, services: Services) -> None:
        notify.reloading()
        try:
            services.settings = config.load(self._path).settings
        except UnderlayError as error:
            LOGGER.error("reload refused, the old configuration stays", extra={"error": str(error)})  # noqa: TRY400
        else:
            LOGGER.info("reloaded", extra={"pools": sorted(services.settings.pools)})
        notify.notify("READY=1")

    def _on_stop(self, _signal: int, _frame: Any) -> None:  # noqa: ANN401  # signal.signal's own type
        self._stop = True
        self._wake.set()

    def _on_reload(self, _signal: int, _frame: Any) -> None:  # noqa: ANN401
        self._reload = True
        self._wake.set()


def _settle_memory() -> None:
    """Move what start-up made out of the collector's sight: a full collection in mid-ADD would cost 20 ms and more."""
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    main()
