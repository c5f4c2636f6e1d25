"""The tables of the outbox, the same for SQLite and PostgreSQL.

What changes often (`entries_table`) and what is large (`segments_table`) are separate tables.
`ordering_keys_table` has rows only of entries that block: a delivered, cancelled or dropped entry
has none. `all_keys_table` has the blocking entries with ALL_KEYS. `pending_records_table` has steps
that no audit trail has recorded yet. `entries_table.behind` is the number of an earlier entry that
blocks this one, null where none does. `entries_table.leased_until` is the end of the last lease: of
a waiting entry, the moment from which its delay counts.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

# A process of another version must not use the database at the same time: it would not see
# everything that blocks.
VERSION: Final = 1
METADATA: Final = sa.MetaData()
_NUMBER: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_MOMENT: Final = sa.Float(53)

meta_table: Final = sa.Table(
    "outbox_meta",
    METADATA,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.String(256), nullable=False),
)
entries_table: Final = sa.Table(
    "outbox_entries",
    METADATA,
    sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("caller", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("recovery", sa.String(16), nullable=False),
    sa.Column("doubt", sa.Boolean, nullable=False),
    sa.Column("queued_at", _MOMENT, nullable=False),
    sa.Column("due_at", _MOMENT, nullable=False),
    sa.Column("finished_at", _MOMENT),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("cause", sa.String(64), nullable=False),
    sa.Column("owner", sa.String(64)),
    sa.Column("leased_until", _MOMENT),
    sa.Column("behind", _NUMBER),
    sa.Column("collisions", sa.Integer, nullable=False, server_default="0"),
    sa.Index("outbox_entries_by_state", "state", "number"),
    sa.Index("outbox_entries_by_caller", "caller", "number"),
    sa.Index("outbox_entries_by_end", "finished_at"),
    # Counts groups without a look at the entries themselves.
    sa.Index("outbox_entries_by_group", "state", "cause", "caller", "queued_at"),
    # Numbers are never reused: a reused one could reverse the order of entries.
    sqlite_autoincrement=True,
)
ordering_keys_table: Final = sa.Table(
    "outbox_orders",
    METADATA,
    sa.Column("mark", sa.LargeBinary(32), primary_key=True),
    sa.Column("entry", _NUMBER, primary_key=True, autoincrement=False),
    sa.Index("outbox_orders_by_entry", "entry"),
)
sa.Index(
    "outbox_entries_by_caller_and_state",
    entries_table.c.caller,
    entries_table.c.state,
    entries_table.c.number,
)
# Finds the entries that may be claimed, and those behind an entry, however many others there are.
sa.Index(
    "outbox_entries_by_behind",
    entries_table.c.behind,
    entries_table.c.state,
    entries_table.c.due_at,
    entries_table.c.number,
)
all_keys_table: Final = sa.Table(
    "outbox_alone",
    METADATA,
    sa.Column("entry", _NUMBER, primary_key=True, autoincrement=False),
    sa.Column("caller", sa.Text, nullable=False),
    sa.Index("outbox_alone_by_caller", "caller", "entry"),
)
# How much each caller has in states of `BLOCKING`: counted anew, a million entries would take a
# second for each write.
usage_table: Final = sa.Table(
    "outbox_usage",
    METADATA,
    sa.Column("caller", sa.Text, primary_key=True),
    sa.Column("entries", sa.BigInteger, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
)
segments_table: Final = sa.Table(
    "outbox_pieces",
    METADATA,
    sa.Column("entry", _NUMBER, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
)
pending_records_table: Final = sa.Table(
    "outbox_notes",
    METADATA,
    sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
    sa.Column("step", sa.String(16), nullable=False),
    sa.Column("entry", sa.String(64), nullable=False),
    sa.Column("caller", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("at", _MOMENT, nullable=False),
    sqlite_autoincrement=True,
)
