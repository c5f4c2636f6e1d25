"""Decides whether the links of a resource may be rewritten, and holds the output until then.

Documents and signed content must stay unchanged, but the member that makes a resource one of these
may come after its links: a Bundle's `signature` is its last member, and JSON members have no order.
So an edit is held until every resource around it is decided. Only the first undecided edit starts
the wait; text without links is not delayed. See `HOLD_LIMIT` for what happens when it lasts.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import ClassVar, Final, TypeVar, cast

from gateway.fhir.links.link_elements import PATCHED, Path, has_content_form, is_listed

# Bytes. An edit undecided for longer is dropped, with all others of the resources around it: the
# links of such a resource stay as the platform sent them, which is safe if it was signed. Only
# unsigned collections and messages of more than 16 MiB, or with more than some 20,000 links, reach
# the limit. Entries that are rewritten together are held twice, as they were sent and rewritten.
HOLD_LIMIT: Final = 16 * 1024 * 1024
EDITS_LIMIT: Final = 4 * 1024 * 1024
"""Bytes of memory for undecided edits, in addition to the text: about 20,000 edits."""

ENTRIES: Final[Path] = ("entry", "fullUrl")
"""The path in an edit of complete entries of a Bundle: they change in a Bundle only."""

# Estimates of that memory in bytes: an edit with its scope, a name in a path.
_EDIT_WEIGHT: Final = 200
_NAME_WEIGHT: Final = 80
_MAX_POINTER_LENGTH: Final = 1024  # characters of a JSON Pointer into a resource

# Bundles that a server makes for one response, or a caller for one request, and that are never
# signed in practice: in a body too long to be buffered completely, the type alone decides, so that
# search results stream.
_TRANSIENT_BUNDLES: Final = frozenset(
    {"searchset", "history", "subscription-notification"}
    | {"transaction", "transaction-response", "batch", "batch-response"}
)

_Shared = TypeVar("_Shared", Path, bytes)


class ResourceScope:
    """One resource of a body: what is known of it so far, and whether its links may be rewritten.

    `may_rewrite` is None until that is decided. `is_streaming`: the type alone decides it for
    some Bundles. With `required_type` only the links of a resource of that type may be rewritten.
    """

    __slots__ = (
        "bundle_type",
        "is_signed",
        "is_streaming",
        "is_used",
        "may_rewrite",
        "parent",
        "required_type",
        "resource",
    )

    # mypyc makes an attribute of each object of it unless it is a class variable.
    watched_members: ClassVar[frozenset[str]] = frozenset({"resourceType", "type", "signature"})

    def __init__(
        self, parent: ResourceScope | None, *, streams: bool, required_type: str | None = None
    ) -> None:
        self.parent = parent
        self.is_streaming = streams
        self.required_type = required_type
        self.is_used = False  # a link in it was rewritten and sent
        self.resource: str | None = None
        self.bundle_type: str | None = None
        self.is_signed = False
        self.may_rewrite: bool | None = None

    def observe_member(self, member: str, value: str) -> None:
        """Record a watched member; the first of a name counts."""
        if member == "signature":
            self.is_signed = True
        elif member == "resourceType":
            self.resource = self.resource or value
        elif member == "type":
            self.bundle_type = self.bundle_type or value
        if self.may_rewrite is None or (self.may_rewrite and self.is_signed and not self.is_used):
            self.may_rewrite = self._decide()

    def close(self) -> None:
        """End the resource: watched members that were not observed are absent."""
        if self.may_rewrite is None:
            self.may_rewrite = not self.is_signed and self.required_type in {None, self.resource}

    def decision(self) -> bool | None:
        """Return whether this resource and all around it may be rewritten; None while undecided."""
        result: bool | None = True
        scope: ResourceScope | None = self
        while scope is not None:
            if scope.may_rewrite is False:
                return False
            if scope.may_rewrite is None:
                result = None
            scope = scope.parent
        return result

    def mark_rewritten(self) -> None:
        """Mark this scope and all scopes around it as rewritten.

        A signature found later no longer stops rewriting: it is invalid already.
        """
        scope: ResourceScope | None = self
        while scope is not None:
            scope.is_used = True
            scope = scope.parent

    def element(self, path: Path) -> Path:
        """Return the path of an element as `gateway.fhir.links.link_elements` uses it."""
        return path

    def _decide(self) -> bool | None:
        if self.resource == "OperationOutcome":
            return False  # holds only text
        if self.required_type is not None and self.resource != self.required_type:
            return None if self.resource is None else False
        if self.resource not in {"Bundle", "Provenance", None}:
            return True
        if self.is_signed or (self.bundle_type == "document" and self.resource != "Provenance"):
            return False if self.resource else None
        if not self.is_streaming or self.bundle_type not in _TRANSIENT_BUNDLES:
            return None
        # `type` may come before `resourceType`. No other resource has a `type` with these codes.
        self.resource = self.resource or "Bundle"
        return True if self.resource == "Bundle" else None


class PatchScope(ResourceScope):
    """One operation of a JSON Patch (RFC 6902); its `path` defines which element `value` is."""

    __slots__ = ("pointer",)

    watched_members: ClassVar[frozenset[str]] = frozenset({"path"})

    def __init__(self, parent: ResourceScope | None) -> None:
        super().__init__(parent, streams=False)
        self.resource = PATCHED
        self.pointer: Path = ()

    def observe_member(self, member: str, value: str) -> None:
        """Record the operation's path."""
        if member == "path" and self.may_rewrite is None:
            names = value[:_MAX_POINTER_LENGTH].split("/")[1:]
            self.pointer = tuple(name for name in names if not name.isdigit() and name != "-")
            self.may_rewrite = len(value) <= _MAX_POINTER_LENGTH

    def close(self) -> None:
        """End the operation. Without a path its value is unknown and stays unchanged."""
        self.may_rewrite = bool(self.may_rewrite)

    def element(self, path: Path) -> Path:
        """Return the path in the patched resource; empty for anything but `value`."""
        return self.pointer + path[1:] if path[0] == "value" else ()


class EntryDataScope(ResourceScope):
    """The `data` of a Binary in an entry of a Bundle: a JSON Patch if the entry's method is PATCH.

    The Binary, the parent, may turn out to be another resource.
    """

    __slots__ = ()

    def observe_member(self, member: str, value: str) -> None:
        """Record the `method` of the entry's request."""
        if self.may_rewrite is None:
            self.may_rewrite = value == "PATCH"

    def close(self) -> None:
        """End the entry. Without a request it is not carried out."""
        self.may_rewrite = bool(self.may_rewrite)

    def decision(self) -> bool | None:
        """Return whether the data may be rewritten; None while undecided."""
        if self.parent is not None:
            self.resource = self.parent.resource
        return super().decision()


@dataclass(slots=True, eq=False)
class Edit:
    """A URL that may be replaced: `length` bytes, `position` bytes from the start of the body.

    `head` replaces its first `cut` bytes. `names_resource`: the text after the base names a
    resource; None for an element of a `ContentForm`. With the path `ENTRIES` it is the text of
    complete entries, with `urls` that are replaced in it and `kept_urls` that are not.
    """

    position: int
    length: int
    head: bytes
    cut: int
    scope: ResourceScope
    path: Path
    names_resource: bool | None
    urls: int = 1
    kept_urls: int = 0

    def is_listed(self) -> bool:
        """Return whether the rules list the element; to be called once the scope is decided."""
        resource, path = self.scope.resource, self.scope.element(self.path)
        if self.names_resource is None:
            return has_content_form(resource, path)
        return is_listed(resource, path, names_resource=self.names_resource)


class HeldOutput:
    """The rewritten text, in order; it is held from the first undecided edit on.

    `rewritten` counts the URLs replaced, `unrewritten` those under the same bases left unchanged.
    """

    __slots__ = (
        "_edits",
        "_held",
        "_limit",
        "_ready",
        "_shared",
        "_start",
        "_weight",
        "rewritten",
        "unrewritten",
    )

    def __init__(self, limit: int) -> None:
        self._ready: list[bytes] = []
        self._edits: deque[Edit] = deque()  # undecided, or after an undecided one
        self._held = bytearray()  # the text from the first edit on, at `_start` in the body
        self._start = 0
        self._shared: dict[Path | bytes, Path | bytes] = {}  # heads and paths, mostly equal
        self._weight = 0
        self._limit = limit
        self.rewritten = 0
        self.unrewritten = 0

    @property
    def has_undecided_edit(self) -> bool:
        """Whether any edit is undecided."""
        return bool(self._edits)

    def text(self, chunk: bytes) -> None:
        """Add text that stays unchanged."""
        if self._edits:
            self._held += chunk
        else:
            self._ready.append(chunk)

    def edit(self, edit: Edit, original: bytes) -> None:
        """Add a URL that may be replaced; `original` is its text."""
        may_rewrite = edit.scope.decision()
        if may_rewrite is not None and not self._edits:
            self._apply(edit, original, may_rewrite)
            return
        if not self._edits:
            self._start = edit.position
        self._held += original
        self._weight += _EDIT_WEIGHT * edit.urls
        if edit.path is not ENTRIES:
            edit.head = self._share(edit.head, len(edit.head))
            edit.path = self._share(edit.path, _NAME_WEIGHT * len(edit.path))
        self._edits.append(edit)

    def release_decided(self) -> None:
        """Release the output up to the first undecided edit."""
        done = 0
        while self._edits:
            edit = self._edits[0]
            at = edit.position - self._start
            self._release(done, at)
            done = at
            may_rewrite = edit.scope.decision()
            if may_rewrite is None:
                break
            self._edits.popleft()
            self._weight -= _EDIT_WEIGHT * edit.urls
            done += edit.length
            self._apply(edit, bytes(self._held[at:done]), may_rewrite)
        else:
            self._release(done, len(self._held))
            done = len(self._held)
            self._shared.clear()
            self._weight = 0
        del self._held[:done]
        self._start += done

    def expire(self, position: int) -> None:
        """Leave edits unchanged that have waited too long at `position`, or are too many."""
        while self._edits:
            first = self._edits[0]
            if position - first.position <= self._limit and self._weight <= EDITS_LIMIT:
                return
            _refuse_rewriting(first.scope)
            self.release_decided()

    def release_unchanged(self) -> None:
        """End the body: undecided edits stay unchanged."""
        self.expire(1 << 62)

    def take(self) -> list[bytes]:
        """Remove and return the output that can be sent, in chunks."""
        ready, self._ready = self._ready, []
        return ready

    def _release(self, start: int, end: int) -> None:
        if end > start:
            self._ready.append(bytes(self._held[start:end]))

    def _share(self, value: _Shared, weight: int) -> _Shared:
        """Return the stored value that is equal to `value`; store it if there is none."""
        stored = self._shared.setdefault(value, value)
        if stored is value:
            self._weight += weight
        return cast(_Shared, stored)

    def _apply(self, edit: Edit, original: bytes, may_rewrite: bool) -> None:
        if may_rewrite and edit.is_listed():
            edit.scope.mark_rewritten()
            self.rewritten += edit.urls
            self.unrewritten += edit.kept_urls
            self._ready.append(edit.head + original[edit.cut :])
        else:
            # Data that is no patch is content, and mostly not even looked at.
            if not isinstance(edit.scope, EntryDataScope):
                self.unrewritten += edit.urls + edit.kept_urls
            self._ready.append(original)


def _refuse_rewriting(scope: ResourceScope | None) -> None:
    while scope is not None:
        if scope.may_rewrite is None:
            scope.may_rewrite = False
        scope = scope.parent
