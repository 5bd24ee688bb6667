"""The book as a ledger has it, at start or after the two disagreed."""

import sqlite3

from cni_underlay.ipam.book import Book
from cni_underlay.records import AddressState, Instant
from cni_underlay.store.rows import key_from
from cni_underlay.store.text import restored
from cni_underlay.store.writer import Writer

_ADDRESSES = "SELECT {} FROM address WHERE pool = ? AND state {}"


def book_of(connection: sqlite3.Connection) -> Book:
    """Plain columns and no records: 100,000 leases are read in a few tenths of a second."""
    book = Book()
    for pool, name, quarantine in connection.execute("SELECT id, name, quarantine FROM pool").fetchall():
        _load_pool(book, connection, pool, restored(name))
        book.shelf(restored(name)).quarantine = quarantine
    return book


def _load_pool(book: Book, connection: sqlite3.Connection, pool: int, name: str) -> None:
    leased = connection.execute(_ADDRESSES.format("address", "= 'leased'"), (pool,))
    book.load_leased(name, (key_from(blob) for (blob,) in leased))
    resting = connection.execute(_ADDRESSES.format("uptime, address", "= 'quarantined'"), (pool,))
    book.load_resting(name, [(since, key_from(blob)) for since, blob in resting])
    aside = connection.execute(_ADDRESSES.format("address, state", "IN ('reserved', 'foreign')"), (pool,))
    for blob, state in aside:
        book.set_aside(name, key_from(blob), AddressState(state))
    cursors = connection.execute("SELECT slot, address FROM cursor WHERE pool = ?", (pool,))
    book.shelf(name).cursors.update((slot, key_from(blob)) for slot, blob in cursors)


def begin_boot(writer: Writer, now: Instant) -> None:
    """Uptimes of two boots cannot be compared, so what rested when the machine stopped rests anew, in full.

    That may be longer than needed and is never shorter: peers that did not reboot still remember the old owners.
    """
    connection = writer.connection
    news = """
        SELECT NOT EXISTS (SELECT 1 FROM boot WHERE boot_id = ?) OR EXISTS (
            SELECT 1 FROM address JOIN boot ON boot.id = boot WHERE state = 'quarantined' AND boot_id <> ?)
    """
    if not connection.execute(news, (now.boot_id, now.boot_id)).fetchone()[0]:
        return
    connection.execute("BEGIN IMMEDIATE")
    boot = writer.boot(now.boot_id)
    anew = "UPDATE address SET uptime = ?, boot = ? WHERE state = 'quarantined' AND boot <> ?"
    connection.execute(anew, (now.uptime, boot, boot))
    connection.execute("DELETE FROM terms WHERE id NOT IN (SELECT terms FROM lease)")
    connection.execute("COMMIT")
