"""The ledger on SQLite: what DESIGN calls the store, and the one that ships.

The database is the truth; the book in memory finds addresses fast and is only ever what the database says. Every change
goes through one group commit: pick from the book, write rows, commit; if the commit fails, the book is put back.
Reading has a connection of its own, so that nobody who looks waits for a disk.
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from cni_underlay.errors import AttachmentExistsError, StoreUnavailableError, TryAgainLaterError
from cni_underlay.ipam import choice
from cni_underlay.ipam.book import Book
from cni_underlay.ipam.keys import key_of
from cni_underlay.ipam.mac import mac_of
from cni_underlay.records import (
    AddressState,
    Attachment,
    Claim,
    Dns,
    Event,
    Instant,
    IPAddress,
    Lease,
    LeasedAddress,
    Pool,
    PoolUsage,
)
from cni_underlay.store import opening, rows, terms
from cni_underlay.store.ballast import Ballast
from cni_underlay.store.commits import GroupCommit, Operation, Weight
from cni_underlay.store.lock import LedgerLock
from cni_underlay.store.opening import Damage
from cni_underlay.store.writer import Writer
