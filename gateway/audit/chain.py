"""The hash chain of audit files: how each record is bound to the record before it.

The line of a record ends in `,"seq":N,"prev":"H","hash":"H"}`. `seq` counts from 1, `prev` is the
`hash` of the record before (64 zeros for the first), and `hash` is the SHA-256 of the bytes of the
line without `,"hash":"…"` and without the line feed. To recompute it, nothing has to be parsed or
serialized again, so that any tool can do it: docs/audit.md shows one.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, NamedTuple

GENESIS: Final = "0" * 64
# Events that occur only in files. A file that continues another one begins with a `rotation`. A
# file whose first lines were removed can thus be distinguished from a file whose predecessor was
# archived.
ROTATION: Final = "rotation"
TORN: Final = "torn"

# The text of a JSON string cannot match: quotes inside of it are escaped.
_END: Final = re.compile(
    rb',"seq":([1-9][0-9]{0,17}),"prev":"([0-9a-f]{64})","hash":"([0-9a-f]{64})"\}\Z'
)
_MAX_END_BYTES: Final = 200
_HASH_MEMBER: Final = len(b',"hash":""}') + 64


class ChainPosition(NamedTuple):
    """The position that a chain has reached: sequence number and hash of its last record."""

    seq: int = 0
    hash: str = GENESIS


class ChainedRecord(NamedTuple):
    """The chain members of a record. `has_valid_hash`: `hash` matches the bytes of the line."""

    seq: int
    prev: str
    hash: str
    has_valid_hash: bool

    @property
    def position(self) -> ChainPosition:
        """The position after this record, to which the next record has to be bound."""
        return ChainPosition(self.seq, self.hash)


def append_to_chain(line: bytes, last: ChainPosition) -> tuple[bytes, ChainPosition]:
    """Return the record of a line that is bound to `last`, and the new position.

    `line` is a JSON object with its line feed, and so is the record.
    """
    seq = last.seq + 1
    body = b'%b,"seq":%d,"prev":"%b"' % (line[:-2], seq, last.hash.encode())
    digest = hashlib.sha256(body + b"}").hexdigest()
    return b'%b,"hash":"%b"}\n' % (body, digest.encode()), ChainPosition(seq, digest)


def parse_record(line: bytes) -> ChainedRecord | None:
    """Return the chain members of a line without its line feed, or None if it has none."""
    found = _END.search(line, max(0, len(line) - _MAX_END_BYTES))
    if found is None:
        return None
    seq, prev, digest = int(found[1]), found[2].decode(), found[3].decode()
    computed = hashlib.sha256(line[:-_HASH_MEMBER] + b"}").hexdigest()
    return ChainedRecord(seq, prev, digest, has_valid_hash=computed == digest)
