"""The thread that waits for the disk: nobody is told "done" too early, and a refusing disk is heard by who asked."""

import os
import threading
from pathlib import Path

import pytest

from cni_underlay.errors import StoreUnavailableError
from cni_underlay.store.flusher import Flusher


def test_whoever_waits_returns_after_the_flush_of_what_they_asked_for(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 4096)
    flusher = Flusher(log)
    try:
        threads = [threading.Thread(target=lambda: [flusher.wait(flusher.ask()) for _ in range(50)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)
    finally:
        flusher.close()


def test_without_a_log_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    flusher = Flusher(tmp_path / "log")
    flusher.wait(flusher.ask())
    flusher.close()


def test_a_disk_that_refuses_is_reported_to_who_asked_and_to_nobody_later(tmp_path: Path) -> None:
    log = tmp_path / "log"
    os.mkfifo(log)  # fdatasync(2): EINVAL for what is no file
    holder = os.open(log, os.O_RDWR)
    flusher = Flusher(log)
    try:
        refused = flusher.ask()
        with pytest.raises(StoreUnavailableError, match="cannot be flushed"):
            flusher.wait(refused)
        log.unlink()
        log.write_bytes(b"")
        flusher.wait(flusher.ask())
        with pytest.raises(StoreUnavailableError):
            flusher.wait(refused)
    finally:
        flusher.close()
        os.close(holder)


def test_closing_finishes_what_was_asked_for(tmp_path: Path) -> None:
    flusher = Flusher(tmp_path / "log")
    tickets = [flusher.ask() for _ in range(20)]
    flusher.close()
    for ticket in tickets:
        flusher.wait(ticket)
