"""The example data with its traps: exactly the listed URLs change, in JSON and in XML."""

from __future__ import annotations

import json
import random

import pytest

from gateway.fhir.links.link_map import LinkMap
from gateway.fhir.links.rewriting import rewriter_for
from tests.fhir.examples import CHANGES, FILES, PLATFORM, strings

GATEWAY = "https://gw.clinic.uz/dhp"
LINKS = LinkMap(PLATFORM, GATEWAY)


def run(path, body, sizes=(), direction="to-gateway"):
    """The rewritten body, cut at the given lengths, and the two counts."""
    kind = "application/fhir+xml" if path.suffix == ".xml" else "application/fhir+json"
    rewriter = rewriter_for(kind, LINKS, direction)
    pieces, at = [], 0
    for size in sizes:
        pieces.append(rewriter.feed(body[at : at + size]))
        at += size
    pieces += [rewriter.feed(body[at:]), rewriter.finish()]
    return b"".join(pieces), rewriter.rewritten, rewriter.unrewritten


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_exactly_the_listed_places_change(path):
    """Nothing else does, to the byte."""
    body = path.read_bytes()
    changes = CHANGES.get(path.stem, set())
    text, rewritten, unrewritten = run(path, body)
    assert rewritten == len(changes)
    assert rewritten + unrewritten == body.count(b"https://playground.dhp.uz/fhir")
    assert text.replace(GATEWAY.encode(), PLATFORM.encode()) == body
    if path.suffix == ".json":
        before, after = strings(json.loads(body)), strings(json.loads(text))
        assert {place for place in before if before[place] != after[place]} == changes
        assert all(after[place].startswith(GATEWAY) for place in changes)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_any_chunking_gives_the_same_bytes(path):
    """From single bytes to a few large pieces."""
    body = path.read_bytes()
    whole = run(path, body)
    dice = random.Random(path.name)  # noqa: S311 - no secret
    assert run(path, body, [1] * len(body)) == whole
    for most in (10, 100, 1000, 5000):
        sizes = [dice.randint(1, most) for _ in range(2 * len(body) // most)]
        assert run(path, body, sizes) == whole


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_there_and_back_gives_the_original(path):
    """What a caller sends back is what the platform sent."""
    body = path.read_bytes()
    assert run(path, run(path, body)[0], direction="to-platform")[0] == body


def test_all_examples_are_there():
    """The traps are worth nothing when the data moved."""
    assert len(FILES) >= 26
