"""The examples with lookalikes of links: exactly the listed URLs change, in JSON and in XML."""

from __future__ import annotations

import json

import pytest

from gateway.fhir.links.link_map import LinkMap
from gateway.fhir.links.rewriting import rewriter_for
from tests.fhir.examples import CHANGES, FILES, PLATFORM, strings

GATEWAY = "https://gw.clinic.uz/dhp"
LINKS = LinkMap(PLATFORM, GATEWAY)


def run(path, body):
    """Return the rewritten body and the two counts."""
    kind = "application/fhir+xml" if path.suffix == ".xml" else "application/fhir+json"
    rewriter = rewriter_for(kind, LINKS, "to-gateway")
    return rewriter.feed(body) + rewriter.finish(), rewriter.rewritten, rewriter.unrewritten


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_exactly_the_listed_places_change(path):
    """To the octet."""
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


def test_all_examples_exist():
    assert len(FILES) >= 26
