"""What a page costs does not depend on how it is written: compared within one process."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.pages import SPELLINGS, linked, spelled
from benchmarks.rewriting import reserialise, rewrite
from gateway.fhir.links.link_map import LinkMap

LINKS = LinkMap("https://playground.dhp.uz/fhir", "http://gateway.clinic.uz:8080/fhir")
# Ratios that are only reached when something went wrong: half as much again as is promised.
GROSS_DIFFERENCE = 2.4
GROSS_LOSS = 1.5


def cost(work: Callable[[], object]) -> float:
    """The least processor time of many runs."""
    times = []
    for _ in range(25):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return min(times)


def test_no_spelling_costs_much_more_than_another() -> None:
    """The slowest at most so many times the fastest, and no more than to parse and write it."""
    page = linked(55 * 1024, "https://playground.dhp.uz/fhir")
    costs: dict[str, float] = {}
    for spelling in SPELLINGS:
        body = spelled(page, spelling)
        costs[spelling] = cost(lambda body=body: rewrite(body, LINKS))  # type: ignore[misc]
        beside = cost(lambda body=body: reserialise(body))  # type: ignore[misc]
        assert costs[spelling] < GROSS_LOSS * beside, spelling
    del costs["slashes"]
    assert max(costs.values()) < GROSS_DIFFERENCE * min(costs.values()), costs
