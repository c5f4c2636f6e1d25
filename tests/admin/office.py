"""An outbox with waiting, failed and unclear entries, its page and its operators."""

from __future__ import annotations

import base64
import contextlib
import html
import re
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from gateway.admin.admin_listener import OperatorRunner
from gateway.admin.admin_server import build_application
from gateway.admin.operators import Operators
from gateway.admin.outbox_admin_api import OutboxAdminApi
from gateway.app.listening_sockets import listen
from gateway.config.value_types import ListenAddress
from gateway.i18n import Message
from gateway.outbox.entry import (
    SENT_NOTE,
    EntryState,
    OutboxEvent,
    PendingAuditRecord,
    RecoveryMode,
    StoredResponse,
)
from gateway.outbox.store.outbox_store import OutboxStore
from gateway.outbox.store.sealed_contents import ContentCipher
from gateway.secret import Secret
from tests.doubles.clock import FakeClock
from tests.doubles.gateway_states import StatusSources
from tests.outbox.attempts import ME, claim, finish, present
from tests.outbox.drafts import ROOMY, draft, write
from tests.outbox.places import KEY, PostgresPlace, SqlitePlace, Wall
from tests.outbox.test_notes import Records

PAGE = 10
PATIENT = "planted-patient-id"
PASSWORD = "planted-password"
AZIZ_PASSWORD = "пароль"
FORM = re.compile(r'<form method="post" action="([^"]+)">(.*?)</form>', re.DOTALL)
FIELD = re.compile(r'name="([^"]+)"(?: value="([^"]*)")?')


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"}


DILNOZA = basic("dilnoza", PASSWORD)


@dataclass(frozen=True)
class Seen:
    """A complete response."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def forms(self) -> dict[str, dict[str, str]]:
        """Return the fields of each form, by the last segment of the form's action."""
        return {
            action.partition("?")[0].rpartition("/")[2]: dict(FIELD.findall(inside))
            for action, inside in FORM.findall(self.text)
        }

    @property
    def words(self) -> str:
        body = self.text.partition("<body>")[2].partition("<script>")[0]
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


@dataclass
class Office:
    """The page's address and the objects behind it; `records` is what was written to the audit."""

    url: str
    store: OutboxStore
    operators: Operators
    clock: FakeClock
    events: list[OutboxEvent] = field(default_factory=list)
    records: Records = field(default_factory=Records)

    async def see(self, path: str = "", **headers: str) -> Seen:
        return await self._ask("GET", path, headers)

    async def send(self, path: str, form: Mapping[str, str], **headers: str) -> Seen:
        """Send a form as the browser of a signed-in operator does, unless the headers differ."""
        usual = {**DILNOZA, "Origin": self.url, "Sec-Fetch-Site": "same-origin"}
        return await self._ask("POST", path, {**usual, **headers}, form)

    async def _ask(
        self, method: str, path: str, headers: Mapping[str, str], form: Any = None
    ) -> Seen:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        async with aiohttp.request(
            method, f"{self.url}/outbox{path}", headers=named, data=form, allow_redirects=False
        ) as answer:
            return Seen(answer.status, dict(answer.headers), await answer.text())

    async def put(self, name: str, cause: str = "", caller: str = "lis") -> str:
        made = draft(name, caller=caller, cause=cause, recovery=RecoveryMode.HOLD)
        body = f'{{"subject":{{"reference":"Patient/{PATIENT}"}},"id":"{name}"}}'.encode()
        request = replace(write(name), body=body, target_suffix=f"Observation/{name}?of={PATIENT}")
        return (await self.store.enqueue(replace(made, request=request))).id

    async def ended(
        self, name: str, state: EntryState, response: StoredResponse, caller: str = "lis"
    ) -> str:
        """Enqueue a write, claim it, and record its final state. Return its id."""
        entry_id = await self.put(name, caller=caller)
        while entry_id not in {each.id for each in await claim(self.store, most=1, owner=ME)}:
            pass
        entry = await present(self.store, entry_id)
        assert await finish(self.store, ME, entry, state, response)
        return entry_id

    async def refused(self, name: str, status: int = 422, caller: str = "lis") -> str:
        """Enqueue a write that the platform has rejected, and return its id."""
        body = f'{{"diagnostics":"{PATIENT}"}}'.encode()
        return await self.ended(name, EntryState.FAILED, StoredResponse(status, body=body), caller)

    async def unclear(self, name: str, note: Message = SENT_NOTE) -> str:
        answer = StoredResponse(502, reason="upstream-failed", note=note)
        return await self.ended(name, EntryState.UNCLEAR, answer)

    async def state(self, entry_id: str) -> EntryState:
        return (await present(self.store, entry_id)).state

    async def notes(self) -> list[PendingAuditRecord]:
        noted = Records()
        while await self.store.record_pending(noted):
            pass
        return noted


@contextlib.asynccontextmanager
async def office(
    directory: Path,
    *,
    operators: bool = True,
    reveal: bool = False,
    there: str = "open",
    place: PostgresPlace | SqlitePlace | None = None,
) -> AsyncIterator[Office]:
    """Yield a page as a gateway serves it. The outbox is `there`: `open`, `away` or `disabled`.

    Without a `place` it is in a file in the directory.
    """
    clock, events, records = FakeClock(1_000_000.0), list[OutboxEvent](), Records()
    named = [("dilnoza", Secret(PASSWORD)), ("aziz", Secret(AZIZ_PASSWORD))] if operators else []
    people = Operators(named, clock)
    # Entries of an earlier day, whose moments are shown with their date.
    wall = Wall(time.time() - 100_000)
    place = replace(place or SqlitePlace(directory / "outbox.db"), wall=wall)
    store = OutboxStore(database=place.database(), cipher=ContentCipher(KEY), settings=ROOMY)
    if there == "open":
        await store.prepare()
    store.observers.append(events.append)
    try:
        desk = OutboxAdminApi(store, records, page=PAGE)
        what = StatusSources("quiet")
        application = build_application(
            metrics=what,
            health=what,
            status=what,
            outbox=None if there == "disabled" else desk,
            operators=people,
            reveal=reveal,
        )
        (listening,) = await listen({"admin.address": ListenAddress("127.0.0.1", 0)})
        runner = OperatorRunner(application, listening.address)
        await runner.setup()
        await web.SockSite(runner, listening.sockets[0]).start()
        try:
            yield Office(f"http://{listening.address}", store, people, clock, events, records)
        finally:
            await runner.cleanup()
    finally:
        await store.close()


async def fill(there: Office) -> dict[str, str]:
    """Enqueue entries of every kind. Return their ids by name; their events are left out."""
    ids = {
        "content": await there.refused("content"),
        "again": await there.refused("again", caller="laboratory"),
        "rights": await there.refused("rights", status=403),
        "unclear": await there.unclear("unclear"),
        "waiting": await there.put("waiting", cause="circuit-open"),
        "turn": await there.put("turn", caller="anonymous"),
    }
    there.events.clear()
    return ids
