"""underlayd: open the ledger, make it agree with the kernel, and serve until told to stop."""

import argparse
import gc
import sys
import time
from contextlib import ExitStack
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path

from cni_underlay.agent import admin, config, log, notify
from cni_underlay.agent.clock import Clock
from cni_underlay.agent.config import AgentConfig
from cni_underlay.agent.handler import Handler
from cni_underlay.agent.http import HttpServer, Page
from cni_underlay.agent.listening import listen
from cni_underlay.agent.log import LOGGER
from cni_underlay.agent.recovery import recover, spare
from cni_underlay.agent.server import Server
from cni_underlay.agent.signals import Signals
from cni_underlay.agent.spool import Spool
from cni_underlay.datapath import KernelDatapath
from cni_underlay.errors import UnderlayError
from cni_underlay.plugin.services import Services, retire_idle
from cni_underlay.store.sqlite import SQLiteStore

STOP_SECONDS = 20.0  # systemd waits 90 s by default; a DEL takes 20 ms, a delegate up to 40 s
LINGER_SECONDS = 1.0  # how long a master's host-side link outlives the last pod
TIDY_SECONDS = 0.2  # marks of finished ADDs are at most this long in memory only
STUCK_SECONDS = 30.0  # of silence of the main loop, after which /healthz asks for a restart
REPLAY_SECONDS = 20.0  # a delegate that hangs in a spooled DEL must not keep the node from starting pods
OVERTAKE_SECONDS = 2.0  # nor any single pod for longer than this


def main() -> None:
    """Entry point of `underlayd` and `python -m cni_underlay.agent`."""
    parser = argparse.ArgumentParser(prog="underlayd", description="The node agent of cni-underlay.")
    parser.add_argument("--config", type=Path, default=config.DEFAULT_CONFIG, help="agent.yaml (default: %(default)s)")
    parser.add_argument("--version", action="version", version=f"underlayd {version('cni-underlay')}")
    arguments = parser.parse_args()
    try:
        settings = config.load(arguments.config)
        log.configure(settings.log_level)
        with Signals() as signals:
            _Agent(arguments.config, settings, signals).run()
    except UnderlayError as error:
        details = f" ({error.details})" if error.details else ""
        sys.exit(f"underlayd: {error}{details}")


class _Agent:
    """One run of the agent, from start to stop."""

    def __init__(self, path: Path, configuration: AgentConfig, signals: Signals) -> None:
        self._path = path
        self._configuration = configuration
        self._signals = signals
        self._state = "is recovering"  # what keeps the agent from serving, "" while it serves
        self._alive_at = time.monotonic()

    def run(self) -> None:
        """Return after a graceful stop."""
        clock = Clock()
        with ExitStack() as stack:
            store = SQLiteStore(self._configuration.ledger, clock())
            stack.callback(store.close)
            datapath = KernelDatapath(LOGGER)
            stack.callback(datapath.close)
            services = Services(store=store, datapath=datapath, settings=self._configuration.settings, clock=clock)
            listener = stack.enter_context(listen(self._configuration.socket))
            self._serve_http(services, stack)
            handler = Handler(services, admin.Desk(services).answer)
            server = Server(listener, handler)
            services.aside = server.aside
            spool = Spool(self._configuration.spool, handler.replay)
            handler.before_add = lambda: self._let_pass(services, spool)
            _report_damage(store)
            self._recover(services, spool)
            _settle_memory()
            self._state = ""
            server.serve()
            notify.ready(listener)
            LOGGER.info("serving", extra={"socket": str(self._configuration.socket), "node": services.settings.node})
            self._wait(services, store)
            self._state = "is stopping"
            LOGGER.info("stopping")
            notify.notify("STOPPING=1")
            if not server.stop(STOP_SECONDS):
                LOGGER.warning("requests were still at work when the agent stopped")
            retire_idle(services, 0.0)
        LOGGER.info("stopped")

    def _recover(self, services: Services, spool: Spool) -> None:
        lost = [str(path) for path in self._configuration.lost_ledgers()]
        if lost:
            LOGGER.error(
                "a ledger was damaged and put aside: pods that only it knows are left alone; remove it after them",
                extra={"aside": lost},
            )
        recovered = recover(services, spare if lost else services.datapath.sweep)
        spool.start()
        if not spool.settle(REPLAY_SECONDS):
            LOGGER.warning("spooled DELs are still being replayed")
        LOGGER.info(
            "recovered",
            extra={
                "leases": recovered.leases,
                "other_boot": recovered.other_boot,
                "completed": recovered.completed,
                "undone": recovered.undone,
                "swept": list(recovered.swept),
                "replayed": spool.replayed,
            },
        )

    def _let_pass(self, services: Services, spool: Spool) -> None:
        if spool.changed():
            with services.aside():
                spool.settle(OVERTAKE_SECONDS)

    def _serve_http(self, services: Services, stack: ExitStack) -> None:
        if self._configuration.http is None:
            return
        pages = {"/healthz": self._health, "/readyz": lambda: self._readiness(services)}
        http = HttpServer(self._configuration.http, pages)
        http.start()
        stack.callback(http.stop)

    def _health(self) -> Page:
        silence = time.monotonic() - self._alive_at
        if self._state == "" and silence > STUCK_SECONDS:
            text = f"the main loop has not turned for {silence:.0f} s"
            return Page(status=HTTPStatus.SERVICE_UNAVAILABLE, text=text)
        return Page(status=HTTPStatus.OK, text="ok")

    def _readiness(self, services: Services) -> Page:
        """Whether an ADD would be served, as far as the node itself is concerned; STATUS judges a configuration."""
        reason = f"the agent {self._state}" if self._state else ""
        try:
            services.store.require_writable()
        except UnderlayError as error:
            reason = reason or str(error)
        if reason:
            return Page(status=HTTPStatus.SERVICE_UNAVAILABLE, text=reason)
        return Page(status=HTTPStatus.OK, text="ok")

    def _wait(self, services: Services, store: SQLiteStore) -> None:
        while not self._signals.stop:
            self._signals.wait(TIDY_SECONDS)
            self._alive_at = time.monotonic()
            if self._signals.take_reload():
                self._reload(services)
            try:
                store.tidy(services.clock())
                retire_idle(services, LINGER_SECONDS)
            except UnderlayError as error:
                LOGGER.error("tidying failed", extra={"error": str(error)})

    def _reload(self, services: Services) -> None:
        notify.reloading()
        try:
            fresh = config.load(self._path)
        except UnderlayError as error:
            LOGGER.error("reload refused, the old configuration stays", extra={"error": str(error)})
        else:
            services.settings = fresh.settings
            LOGGER.info(
                "reloaded",
                extra={
                    "pools": sorted(fresh.settings.pools),
                    "needs_restart": self._configuration.fixed_differences(fresh),
                },
            )
        notify.notify("READY=1")


def _report_damage(store: SQLiteStore) -> None:
    if store.damage is not None:
        LOGGER.error("the ledger was damaged", extra={"reason": store.damage.reason, "aside": str(store.damage.aside)})


def _settle_memory() -> None:
    """Move what start-up made out of the collector's sight: a full collection in mid-ADD would cost 20 ms and more."""
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    main()
