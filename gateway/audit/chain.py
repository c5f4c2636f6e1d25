"""The hash chain of audit files: how each record is bound to the one before it.

A record's line ends in `,"seq":N,"prev":"H","hash":"H"}`. `seq` counts from 1, `prev` is the `hash`
of the record before (64 zeros for the first), and `hash` is the SHA-256 of the line's own bytes
without `,"hash":"…"` and without the line feed. Nothing has to be parsed or written anew to
recompute it, so any tool can: docs/audit.md shows one.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, NamedTuple

GENESIS: Final = "0" * 64
# Events that only files hold. A file that goes on from another one begins with a `rotation`, so
# that a file whose first lines were cut away can be told from one whose predecessor was archived.
ROTATION: Final = "rotation"
TORN: Final = "torn"

# What a JSON string holds can never look like this: its quotes are escaped.
_END: Final = re.compile(
    rb',"seq":([1-9][0-9]{0,17}),"prev":"([0-9a-f]{64})","hash":"([0-9a-f]{64})"\}\Z'
)
_LONGEST_END: Final = 200
_HASH_MEMBER: Final = len(b',"hash":""}') + 64


class ChainPosition(NamedTuple):
    """Where a chain has come to: the last record's number and hash."""

    seq: int = 0
    hash: str = GENESIS


class ChainedRecord(NamedTuple):
    """What a record's line says of its place; `has_valid_hash`: its hash is that of its bytes."""

    seq: int
    prev: str
    hash: str
    has_valid_hash: bool

    @property
    def position(self) -> ChainPosition:
        """What the next record has to follow."""
        return ChainPosition(self.seq, self.hash)


def append_to_chain(line: bytes, last: ChainPosition) -> tuple[bytes, ChainPosition]:
    """The next record: a line that is a JSON object with its line feed, bound to the last one."""
    seq = last.seq + 1
    body = b'%b,"seq":%d,"prev":"%b"' % (line[:-2], seq, last.hash.encode())
    digest = hashlib.sha256(body + b"}").hexdigest()
    return b'%b,"hash":"%b"}\n' % (body, digest.encode()), ChainPosition(seq, digest)


def parse_record(line: bytes) -> ChainedRecord | None:
    """What a line without its line feed says of its place; None when it is no record of a chain."""
    found = _END.search(line, max(0, len(line) - _LONGEST_END))
    if found is None:
        return None
    seq, prev, digest = int(found[1]), found[2].decode(), found[3].decode()
    own = hashlib.sha256(line[:-_HASH_MEMBER] + b"}").hexdigest()
    return ChainedRecord(seq, prev, digest, has_valid_hash=own == digest)
