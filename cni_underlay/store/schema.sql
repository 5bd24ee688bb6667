-- The ledger, version 1. One row of `history` goes with every change of `address`, in the same transaction.
-- Addresses are BLOBs of 4 or 16 bytes in network order: one form for each address, whatever library wrote it as text.
-- `wall` is seconds since the epoch, for people; `uptime` is seconds of CLOCK_BOOTTIME in the boot named beside it.

CREATE TABLE boot (
    id INTEGER PRIMARY KEY,
    boot_id TEXT NOT NULL UNIQUE
) STRICT;

-- `quarantine` is that of the latest lease, for tidying after a restart.
CREATE TABLE pool (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    quarantine REAL NOT NULL DEFAULT 0
) STRICT;

-- Where the round robin of each set stands.
CREATE TABLE cursor (
    pool INTEGER NOT NULL REFERENCES pool,
    slot INTEGER NOT NULL,
    address BLOB NOT NULL,
    PRIMARY KEY (pool, slot)
) STRICT, WITHOUT ROWID;

-- Routes and DNS of leases, as JSON: ten thousand pods of one network share one row.
CREATE TABLE terms (
    id INTEGER PRIMARY KEY,
    body TEXT NOT NULL UNIQUE
) STRICT;

-- AUTOINCREMENT: a generation is never used twice, also when the youngest lease was deleted.
CREATE TABLE lease (
    generation INTEGER PRIMARY KEY AUTOINCREMENT,
    network TEXT NOT NULL,
    container_id TEXT NOT NULL,
    ifname TEXT NOT NULL,
    pod_namespace TEXT NOT NULL,
    pod_name TEXT NOT NULL,
    pod_uid TEXT NOT NULL,
    datapath TEXT NOT NULL,
    mode TEXT NOT NULL,
    master TEXT NOT NULL,
    mtu INTEGER NOT NULL,
    mac TEXT NOT NULL,
    host_ifname TEXT NOT NULL,
    netns_path TEXT NOT NULL,
    netns_inode INTEGER NOT NULL,
    terms INTEGER NOT NULL REFERENCES terms,
    wall REAL NOT NULL,
    uptime REAL NOT NULL,
    boot INTEGER NOT NULL REFERENCES boot,
    attached INTEGER NOT NULL DEFAULT 0 CHECK (attached IN (0, 1)),
    UNIQUE (network, container_id, ifname)
) STRICT;

CREATE INDEX lease_by_master ON lease (master, datapath);

-- An address without a row is free. `slot`, `prefix` and `gateway` are those of its lease; `delegated` addresses go
-- free without rest; `rested_since` is kept where a lease cut a rest short, to go on with if its ADD fails.
CREATE TABLE address (
    pool INTEGER NOT NULL REFERENCES pool,
    address BLOB NOT NULL CHECK (length(address) IN (4, 16)),
    state TEXT NOT NULL CHECK (state IN ('leased', 'quarantined', 'reserved', 'foreign')),
    generation INTEGER REFERENCES lease,
    slot INTEGER NOT NULL DEFAULT 0,
    prefix INTEGER NOT NULL DEFAULT 0,
    gateway BLOB,
    delegated INTEGER NOT NULL DEFAULT 0 CHECK (delegated IN (0, 1)),
    rested_since REAL,
    wall REAL NOT NULL,
    uptime REAL NOT NULL,
    boot INTEGER NOT NULL REFERENCES boot,
    PRIMARY KEY (pool, address),
    CHECK ((state = 'leased') = (generation IS NOT NULL))
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX address_of_lease ON address (generation, pool, slot) WHERE generation IS NOT NULL;

-- `generation` 0 and empty texts where nobody leased the address.
CREATE TABLE history (
    id INTEGER PRIMARY KEY,
    wall REAL NOT NULL,
    uptime REAL NOT NULL,
    boot INTEGER NOT NULL REFERENCES boot,
    what TEXT NOT NULL,
    pool INTEGER NOT NULL REFERENCES pool,
    address BLOB NOT NULL,
    generation INTEGER NOT NULL DEFAULT 0,
    network TEXT NOT NULL DEFAULT '',
    container_id TEXT NOT NULL DEFAULT '',
    ifname TEXT NOT NULL DEFAULT '',
    pod_namespace TEXT NOT NULL DEFAULT '',
    pod_name TEXT NOT NULL DEFAULT '',
    pod_uid TEXT NOT NULL DEFAULT '',
    mac TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE INDEX history_of_address ON history (address);
