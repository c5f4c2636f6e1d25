"""The rewriter compared with an independent, slow implementation of the rules, on random bodies.

`LINKS_BODIES=50000 pytest tests/fhir/links/test_oracle.py` tries that many.
"""

from __future__ import annotations

import os
from itertools import pairwise

import pytest

from gateway.fhir.links.link_map import LinkMap
from gateway.fhir.links.rewriting import rewriter_for
from tests.fhir.bodies import ALIAS, BASE, GATEWAY, Bodies
from tests.fhir.oracle import Oracle

BESIDE = "https://playground.dhp.uz:8443/gw"  # on the platform's own host
LINKS = LinkMap(BASE, GATEWAY, (ALIAS,))
ANSWERS = Oracle((BASE, ALIAS), GATEWAY, to_platform=False)
REQUESTS = Oracle((GATEWAY,), BASE, to_platform=True)
WAYS = {
    "to-gateway": (LINKS, ANSWERS, (BASE, BASE, ALIAS)),
    "to-platform": (LINKS, REQUESTS, (GATEWAY,)),
    "to-gateway, one host": (
        LinkMap(BASE, BESIDE),
        Oracle((BASE,), BESIDE, to_platform=False),
        (BASE, BESIDE),
    ),
}
NUMBER = int(os.environ.get("LINKS_BODIES", "600"))
PARTS = 6


def rewritten(body, way, cuts=(), kind="application/fhir+json"):
    """Return a body rewritten in chunks, and the two counts."""
    rewriter = rewriter_for(kind, WAYS[way][0], way.partition(",")[0])
    pieces = [rewriter.feed(body[a:b]) for a, b in pairwise([0, *cuts, len(body)])]
    return b"".join([*pieces, rewriter.finish()]), rewriter.rewritten, rewriter.unrewritten


def made(part, way):
    """Yield the bodies of one part of the number."""
    _, oracle, bases = WAYS[way]
    for seed in range(part, NUMBER, PARTS):
        yield seed, oracle, Bodies(seed, bases)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("part", range(PARTS))
def test_json_is_rewritten_as_the_oracle_says(part, way):
    """To the octet, with the same counts, in any chunks."""
    for seed, oracle, bodies in made(part, way):
        body = bodies.json(bodies.body())
        wanted = oracle.json(body)
        assert rewritten(body, way) == wanted, (seed, body)
        assert rewritten(body, way, bodies.cuts(len(body))) == wanted, (seed, body)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("part", range(PARTS))
def test_the_exact_scanner_rewrites_the_same(part, way):
    """Text that may be a signature's name is left to it."""
    for seed, oracle, bodies in made(part, way):
        body = bodies.json(bodies.body())
        if seed % 3 or not body.startswith(b'{"'):
            continue
        body = b'{"_":"signature",' + body[1:]
        assert rewritten(body, way) == oracle.json(body), (seed, body)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("part", range(PARTS))
def test_bodies_too_long_to_buffer_are_rewritten_alike(part, way):
    """Unless signed: they are streamed, decided by their type."""
    for seed, oracle, bodies in made(part, way):
        body = bodies.json(bodies.body())
        if seed % 10 > 1 or b"ignature" in body:
            continue
        long = body[:1] + b" " * 140_000 + body[1:]
        wanted = oracle.json(body)
        whole = rewritten(long, way)
        assert (whole[0].replace(b" " * 140_000, b"", 1), *whole[1:]) == wanted, (seed, body)
        cuts = [140_000 + cut for cut in bodies.cuts(len(body))]
        assert rewritten(long, way, cuts) == whole, (seed, body)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("part", range(PARTS))
def test_xml_is_rewritten_as_the_oracle_says(part, way):
    """To the octet, in any chunks."""
    for seed, oracle, bodies in made(part, way):
        body = bodies.xml(bodies.bundle(2) if bodies.chance() < 0.6 else bodies.resource(2))
        wanted = oracle.xml(body)
        kind = "application/fhir+xml"
        assert rewritten(body, way, (), kind)[0] == wanted, (seed, body)
        assert rewritten(body, way, bodies.cuts(len(body)), kind)[0] == wanted, (seed, body)
