"""The elements whose URLs are rewritten, by resource type and path.

A path is the tuple of member names from the resource down, without arrays:
`("entry", "link", "url")`. The lists were taken from the R5 (5.0.0) structure definitions. Elements
that are not listed here never change: canonicals, identifiers, `extension.url`, `meta`, narrative,
text, `Endpoint.address`, `Subscription.endpoint`, `AuditEvent.agent.network[x]`.

Some elements do not hold one URL but a search, a text with URLs, or a JSON Patch: `ContentForm`.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache
from typing import Final

Path = tuple[str, ...]

# Elements of the type Attachment. No element of another type with a `url` has one of these names.
_ATTACHMENTS: Final = frozenset(
    {
        "attachment",
        "content",
        "document",
        "file",
        "form",
        "formatted",
        "image",
        "photo",
        "presentedForm",
    }
)
# Elements of the type Expression, whose `reference` names a definition (a canonical in effect).
_EXPRESSIONS: Final = frozenset({"applicability", "criteria", "expression"})
# Elements whose member `reference` is a plain uri.
_URI_REFERENCES: Final = frozenset({"storageGuideline", "statement"})
_SIGNATURE: Final = re.compile(r"signature\Z|\w+Signature\Z")

PATCHED: Final = "(patched)"
"""In the place of a type: the resource to which a JSON Patch belongs, which is not known."""

# Elements with any URL under the base. The resource is None in a bulk manifest, which has no type.
_URLS: Final[frozenset[tuple[str | None, Path]]] = frozenset(
    {
        ("Bundle", ("link", "url")),
        ("Bundle", ("entry", "link", "url")),
        ("Bundle", ("entry", "fullUrl")),
        ("Bundle", ("entry", "request", "url")),
        ("Bundle", ("entry", "response", "location")),
        ("CapabilityStatement", ("implementation", "url")),
        ("TerminologyCapabilities", ("implementation", "url")),
        ("ValueSet", ("expansion", "next")),
        (PATCHED, ("filterBy", "value")),
        (None, ("link", "url")),
        (None, ("output", "url")),
        (None, ("error", "url")),
        (None, ("deleted", "url")),
        (None, ("request",)),
    }
)


class ContentForm(Enum):
    """How an element holds URLs among other text."""

    URL = "url"
    """A search: a URL, mostly relative, with a query."""
    QUERY = "query"
    """A query."""
    TEXT = "text"
    """Text in which URLs stand between quotes, blanks or commas: arguments, `_filter`."""
    PATCH = "patch"
    """A JSON Patch in base64."""


_SUBSCRIPTION_FORMS: Final[dict[Path, ContentForm]] = {
    ("criteria",): ContentForm.URL,
    ("filterBy", "value"): ContentForm.TEXT,
}
# For requests only, by the resource that has the element. The body of `$graphql` has no type.
_REQUEST_FORMS: Final[dict[Path, tuple[str | None, ContentForm | None]]] = {
    ("entry", "request", "url"): ("Bundle", ContentForm.URL),
    ("entry", "request", "ifNoneExist"): ("Bundle", ContentForm.QUERY),
    ("data",): ("Binary", ContentForm.PATCH),
    ("query",): (None, ContentForm.TEXT),
    ("variables",): (None, ContentForm.TEXT),
}
_NO_FORM: Final = ("", None)
_MAX_CACHED_PATH: Final = 16
MAX_ELEMENT_NAME_LENGTH: Final = 64
"""Characters; no element of FHIR has a longer name."""
_PARAMETER_VALUES: Final = frozenset({"valueUrl", "valueUri"})
_NAMED: Final = re.compile(
    r"/[A-Z][A-Za-z]+(?:/[A-Za-z0-9\-.]{1,64}(?:/_history/[A-Za-z0-9\-.]{1,64})?(?:#.*)?|\?.*)\Z"
)

LISTED_KEYS: Final = frozenset(
    {"reference", "url", "fullUrl", "location", "next", "request", "ifNoneExist"}
    | {"value", "valueUrl", "valueUri", "valueString"}
    | {"criteria", "data", "query", "variables"}
)
"""The names of all members that a rule may list; `value` is that of a JSON Patch."""


class _ElementForm(Enum):
    """What a listed element may hold: any URL under the base, or only one that names a resource."""

    URL = "url"
    REFERENCE = "reference"


def is_listed(resource: str | None, path: Path, *, names_resource: bool) -> bool:
    """Return whether the URL at `path` is rewritten."""
    # FHIR has no longer paths; those that a sender makes up are not cached.
    find = _known_form if len(path) <= _MAX_CACHED_PATH else _form
    form = find(resource, path)
    return form is _ElementForm.URL or (form is _ElementForm.REFERENCE and names_resource)


def names_resource(rest: str, key: str = "reference", *, is_request: bool = True) -> bool:
    """Return whether the part of a URL after the base names a resource, as in a Reference.

    A transaction's references equal the strings in its `fullUrl`s, so that any id is accepted. A
    string (`valueString`) must look like a Reference, and in a response it is text.
    """
    if key == "valueString":
        return is_request and _NAMED.match(rest) is not None
    return len(rest) > 1 and rest[0] == "/"


def _form(resource: str | None, path: Path) -> _ElementForm | None:
    if not path or any(_SIGNATURE.match(name) for name in path):
        return None
    key = path[-1]
    if key == "reference":
        return _ElementForm.REFERENCE if _is_reference(path) else None
    is_attachment = key == "url" and len(path) > 1 and holds_attachment(path[-2])
    if is_attachment or (resource, path) in _URLS:
        return _ElementForm.URL
    if resource == "Parameters" and _is_parameter(path[:-1]):
        return _parameter_form(path)
    return None


_known_form: Final = lru_cache(maxsize=1024)(_form)


def content_form(
    resource: str | None, path: Path, value: str, *, is_request: bool
) -> ContentForm | None:
    """Return the form of `value` at `path` if the resource is the one that `has_content_form` asks.

    `resource` is known of a JSON Patch only. None for a value that may be a URL alone: a search has
    a "?", and criteria without one may be the canonical of a topic.
    """
    if not is_request and path[0] not in {"criteria", "filterBy"}:
        return None  # most links of most responses
    form = _SUBSCRIPTION_FORMS.get(path)
    if form is None and is_request:
        form = _REQUEST_FORMS.get(_without_name(path), _NO_FORM)[1]
    if resource == PATCHED and path == ("value",) and value[:4].lower() != "http":
        form = ContentForm.URL  # the path of the operation may say that it is a search
    return None if form is ContentForm.URL and "?" not in value else form


def has_content_form(resource: str | None, path: Path) -> bool:
    """Return whether the element at `path` of a resource has one of the forms."""
    if path in _SUBSCRIPTION_FORMS:
        return resource in {"Subscription", PATCHED}
    return resource == _REQUEST_FORMS.get(_without_name(path), _NO_FORM)[0]


def _without_name(path: Path) -> Path:
    """Return the path; the name of a variable of `$graphql` is any."""
    return path[:1] if len(path) == 2 and path[0] == "variables" else path


def opens_resource(path: Path) -> bool:
    """Return whether the object at `path` is a separate resource."""
    if not path or path[-1] == "contained":
        return True
    if path in {("entry", "resource"), ("entry", "response", "outcome"), ("issues",)}:
        return True
    return path[-1] == "resource" and _is_parameter(path[:-1])


def holds_attachment(name: str) -> bool:
    """Return whether elements of that name are Attachments, if they have a `url`."""
    return name in _ATTACHMENTS or name.endswith("Attachment")


def _is_reference(path: Path) -> bool:
    if len(path) < 2:
        return False  # for example DetectedIssue.reference: a uri, not a Reference
    name = path[-2]
    if name == "condition":  # an Expression everywhere but in RiskAssessment
        return len(path) == 2
    return not (name in _EXPRESSIONS or name in _URI_REFERENCES or name.endswith("Expression"))


@lru_cache(maxsize=1024)
def is_plain_reference(name: str) -> bool:
    """Return whether `reference` in an element of that name is a Reference's at every path.

    Paths within a signature are an exception.
    """
    return name != "condition" and _form(None, ("any", name, "reference")) is _ElementForm.REFERENCE


def _is_parameter(path: Path) -> bool:
    return path[:1] == ("parameter",) and all(name == "part" for name in path[1:])


def _parameter_form(path: Path) -> _ElementForm | None:
    if path[-1] in _PARAMETER_VALUES:
        return _ElementForm.URL
    # FHIRPath Patch sets a Reference's `reference`, which is a string, through a part.
    return _ElementForm.REFERENCE if path[-1] == "valueString" and len(path) > 2 else None
