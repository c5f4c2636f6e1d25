"""Shares of callers in the outbox."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path

import pytest

from tests.outbox.path.conftest import Open

CALLERS = [
    {"name": name, "networks": ["127.0.0.0/8"], "api_key": f"a-long-key-of-{name}"}
    for name in ("lab", "ward")
]
LAB = {"X_Api_Key": "a-long-key-of-lab"}
WARD = {"X_Api_Key": "a-long-key-of-ward"}


@pytest.mark.parametrize(
    "limits", [{"max_entries": 10, "max_share": 0.3}, {"max_entries": 6}], ids=["set", "half"]
)
async def test_a_caller_that_fills_its_share_leaves_space_for_others(
    opened: Open, limits: dict[str, float]
) -> None:
    async with opened(callers=CALLERS, outbox=limits) as setup:
        setup.relay.cut()
        kept = [(await setup.write(number=n, **LAB)).status for n in range(5)]
        assert kept == [202, 202, 202, 503, 503]
        reply = await setup.write(number=9, **LAB)
        assert reply.headers["X-Gateway-Error"] == "outbox-full"
        assert (await setup.write(number=9, **WARD)).status == 202


SINGLE_CALLER = {
    "no callers": [],
    "one caller": CALLERS[:1],
    "the others' outbox is off": [CALLERS[0], {**CALLERS[1], "outbox": "off"}],
}


@pytest.mark.parametrize("callers", SINGLE_CALLER.values(), ids=SINGLE_CALLER)
async def test_the_only_caller_may_fill_the_outbox(
    opened: Open, callers: list[dict[str, object]]
) -> None:
    async with opened(callers=callers, outbox={"max_entries": 4}) as setup:
        setup.relay.cut()
        replies = [await setup.write(number=n, **LAB) for n in range(5)]
        assert [reply.status for reply in replies] == [202, 202, 202, 202, 503]
        assert replies[-1].headers["X-Gateway-Error"] == "outbox-full"
        assert int(replies[-1].headers["Retry-After"]) > 0


async def test_many_references_use_few_rows_and_keep_the_order(
    opened: Open, tmp_path: Path
) -> None:
    performers = [{"reference": f"Patient/p{n}"} for n in range(80_000)]
    resource = {"resourceType": "Observation", "id": "7", "performer": performers}
    body = json.dumps(resource).encode()
    async with opened(callers=CALLERS) as setup:
        setup.relay.cut()
        first = await setup.write(number=1, patient=1, **LAB)
        many = await setup.enqueue("PUT", "/Observation/7", body, **LAB)
        last = await setup.write(number=2, patient=2, **LAB)
        assert [first.status, many.status, last.status] == [202, 202, 202]
        with contextlib.closing(sqlite3.connect(tmp_path / "outbox.db")) as database:
            rows = database.execute("SELECT count(*) FROM outbox_orders").fetchone()[0]
        assert rows < 10
        await setup.relay.restore()
        for each in (first, many, last):
            await setup.final_response(each.location, **LAB)
    written = [int(target.rpartition("/")[2]) for _, target in setup.writes()]
    assert written == [1, 7, 2]
