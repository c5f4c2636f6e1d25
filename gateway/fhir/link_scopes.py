"""Whether what stands in a resource may be rewritten, and the output that waits for the answer.

Documents and signed content must stay as they are, but what makes a resource one of these may come
after its links: a Bundle's `signature` is its last member, and JSON members have no order. So an
edit is held back until every resource around it has shown what it is. Only the first such edit
starts the wait; text without links flows. See `HOLD_LIMIT` for what happens when it lasts.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from gateway.fhir.link_rules import Path, is_listed, is_query

# Bytes. An edit undecided for longer is dropped, with all others of the resources around it: the
# links of such a resource stay as the platform sent them, which is safe if it was signed. Met only
# by unsigned collections and messages of more than 16 MiB.
HOLD_LIMIT: Final = 16 * 1024 * 1024

# Made by a server for one answer, or by a caller for one request, and never signed: decided by
# their type alone, so that search results stream.
_TRANSIENT_BUNDLES: Final = frozenset(
    {"searchset", "history", "subscription-notification"}
    | {"transaction", "transaction-response", "batch", "batch-response"}
)


class Scope:
    """One resource: what is known of it so far, and whether its links may be rewritten.

    `verdict` is None until that is decided.
    """

    __slots__ = ("bundle_type", "parent", "resource", "signed", "verdict")

    watched = frozenset({"resourceType", "type", "signature"})

    def __init__(self, parent: Scope | None) -> None:
        self.parent = parent
        self.resource: str | None = None
        self.bundle_type: str | None = None
        self.signed = False
        self.verdict: bool | None = None

    def learn(self, member: str, value: str) -> None:
        """Take note of a watched member; the first of a name counts."""
        if member == "signature":
            self.signed = True
        elif member == "resourceType":
            self.resource = self.resource or value
        elif member == "type":
            self.bundle_type = self.bundle_type or value
        if self.verdict is None or (self.verdict and self.signed):
            self.verdict = self._judge()

    def close(self) -> None:
        """The resource ended: what has not shown itself is not there."""
        if self.verdict is None:
            self.verdict = not self.signed

    def settled(self) -> bool | None:
        """The verdict of this resource and all around it; None while one is open."""
        answer: bool | None = True
        scope: Scope | None = self
        while scope is not None:
            if scope.verdict is False:
                return False
            if scope.verdict is None:
                answer = None
            scope = scope.parent
        return answer

    def element(self, path: Path) -> Path:
        """The path of an element as the rules know it."""
        return path

    def _judge(self) -> bool | None:
        if self.resource == "OperationOutcome":
            return False  # nothing but text
        if self.resource not in {"Bundle", "Provenance", None}:
            return True
        if self.signed or self.bundle_type == "document":
            return False if self.resource else None
        if self.bundle_type not in _TRANSIENT_BUNDLES:
            return None
        # Where members come in another order: no other resource has a `type` with these codes.
        self.resource = self.resource or "Bundle"
        return True if self.resource == "Bundle" else None


class PatchScope(Scope):
    """One operation of a JSON Patch (RFC 6902): its `path` says what `value` is."""

    __slots__ = ("pointer",)

    watched = frozenset({"path"})

    def __init__(self, parent: Scope | None) -> None:
        super().__init__(parent)
        self.resource = "(patched)"  # unknown here, but a resource
        self.pointer: Path = ()

    def learn(self, member: str, value: str) -> None:
        """Take note of the operation's path."""
        if member == "path" and self.verdict is None:
            names = value.split("/")[1:]
            self.pointer = tuple(name for name in names if not name.isdigit() and name != "-")
            self.verdict = True

    def close(self) -> None:
        """An operation without a path: nothing is known of its value."""
        self.verdict = bool(self.verdict)

    def element(self, path: Path) -> Path:
        """The path in the patched resource; empty for what is not the value."""
        return self.pointer + path[1:] if path[0] == "value" else ()


@dataclass(slots=True, eq=False)
class Edit:
    """A URL that may be replaced, `position` bytes from the start of the body.

    `rest` is what follows the base in it; None when only values of its query are replaced.
    """

    position: int
    original: bytes
    replacement: bytes
    scope: Scope
    path: Path
    rest: str | None

    def is_wanted(self) -> bool:
        """Whether the element is a listed one; asked once the scope is settled."""
        resource, path = self.scope.resource, self.scope.element(self.path)
        if self.rest is None:
            return is_query(resource, path)
        return is_listed(resource, path, self.rest)


class HeldOutput:
    """The rewritten text, in order; from the first undecided edit on it waits.

    `rewritten` counts the URLs replaced, `unrewritten` those of the same bases left as they were.
    """

    __slots__ = ("_held", "_limit", "_ready", "rewritten", "unrewritten")

    def __init__(self, limit: int) -> None:
        self._ready: list[bytes] = []
        self._held: deque[bytes | Edit] = deque()
        self._limit = limit
        self.rewritten = 0
        self.unrewritten = 0

    @property
    def is_waiting(self) -> bool:
        """Whether an edit is undecided."""
        return bool(self._held)

    def text(self, piece: bytes) -> None:
        """Add text that stays as it is."""
        (self._held if self._held else self._ready).append(piece)

    def edit(self, edit: Edit) -> None:
        """Add text that may be replaced."""
        verdict = edit.scope.settled()
        if verdict is None or self._held:
            self._held.append(edit)
        else:
            self._apply(edit, verdict)

    def settle(self) -> None:
        """Let go what has been decided."""
        while self._held:
            item = self._held[0]
            if isinstance(item, Edit):
                verdict = item.scope.settled()
                if verdict is None:
                    return
                self._apply(item, verdict)
            else:
                self._ready.append(item)
            self._held.popleft()

    def expire(self, position: int) -> None:
        """Give up the edits that have waited for more than the limit at `position`."""
        while self._held:
            first = self._held[0]
            if isinstance(first, Edit):
                if position - first.position <= self._limit:
                    return
                _give_up(first.scope)
            self.settle()

    def abandon(self) -> None:
        """The body ended early: what is undecided stays as it was."""
        self.expire(1 << 62)

    def take(self) -> bytes:
        """What is ready to be sent."""
        ready = b"".join(self._ready)
        self._ready.clear()
        return ready

    def _apply(self, edit: Edit, verdict: bool) -> None:
        if verdict and edit.is_wanted():
            self.rewritten += 1
            self._ready.append(edit.replacement)
        else:
            self.unrewritten += 1
            self._ready.append(edit.original)


def _give_up(scope: Scope | None) -> None:
    while scope is not None:
        if scope.verdict is None:
            scope.verdict = False
        scope = scope.parent
