"""The outbox's page, over a real socket and a real store."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.admin.outbox_page import cause_kind, remedy_kind
from gateway.guidance import REASON_GUIDANCE
from gateway.i18n import LANGUAGES, Message
from gateway.outbox import entry
from gateway.outbox.entry import Actor, EntryState, OutboxStep, StoredResponse
from gateway.secret import Secret
from tests.admin.office import (
    AZIZ_PASSWORD,
    DILNOZA,
    ME,
    PAGE,
    PATIENT,
    Office,
    basic,
    fill,
    office,
)
from tests.outbox.attempts import claim, finish
from tests.outbox.places import PostgresPlace
from tests.outbox.postgres_server import PostgresServer

NOBODY = "0" * 32
LISTED = re.compile(r'href="outbox/([0-9a-f]{32})\?')


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Office]:
    """One with operators, where nothing is shown in full."""
    async with office(tmp_path) as made:
        yield made


@pytest.fixture
async def in_postgresql(tmp_path: Path, server: PostgresServer) -> AsyncIterator[Office]:
    await server.fresh_database("outbox")
    async with office(tmp_path, place=PostgresPlace(server, "outbox")) as made:
        yield made


@pytest.fixture
async def revealing(tmp_path: Path) -> AsyncIterator[Office]:
    """One whose operators may see entries in full."""
    async with office(tmp_path, reveal=True) as made:
        yield made


def plain(text: str) -> str:
    """A text as it is read."""
    return " ".join(text.replace("`", " ").split())


@pytest.mark.parametrize("language", LANGUAGES)
async def test_waiting_entries_are_summarised(there: Office, language: str) -> None:
    await fill(there)

    def said(english: str, **values: Any) -> str:
        return plain(Message(english, **values).in_language(language))

    for page in (
        await there.see(f"?lang={language}", Accept_Language="de"),
        await there.see(Accept_Language=f"{language}, de;q=0.5"),
    ):
        assert page.status == 200
        assert page.headers["Content-Language"] == language
        assert said("Entries wait for your decision") in page.words
        for state, count in (("Failed", 3), ("Unclear", 1), ("Waiting", 2), ("Being sent", 0)):
            assert f"{said(state)} {count} " in page.words
        told = re.sub(r" ([.,:;?])", r"\1", page.words)
        for sentence in (
            said("The platform refused the content ({status}).", status=422),
            said("The platform does not allow it ({status}).", status=403),
            said("Ask the platform's support for permission, then send it again."),
            re.sub(r" ([.,:;?])", r"\1", said(REASON_GUIDANCE["upstream-failed"].meaning)),
            re.sub(r" ([.,:;?])", r"\1", said(REASON_GUIDANCE["circuit-open"].meaning)),
            re.sub(r" ([.,:;?])", r"\1", said(REASON_GUIDANCE["upstream-unreachable"].remedy)),
            said("It waits for the connection, or for earlier writes about the same patient."),
            said("Nothing has to be done: it is delivered by itself, in its order."),
        ):
            assert sentence in told
        assert "laboratory 1 , lis 1" in page.words
        assert f"{said('anonymous')} 1" in page.words
        assert PATIENT not in page.text


@pytest.mark.parametrize(
    ("cause", "kind", "failed", "waiting"),
    [
        ("", "turn", "failed", "waiting"),
        ("circuit-open", "circuit-open", "failed", "upstream-unreachable"),
        ("upstream-timeout", "upstream-timeout", "failed", "upstream-timeout"),
        ("upstream-busy", "upstream-busy", "failed", "upstream-busy"),
        ("token-refused", "token-refused", "failed", "token-refused"),
        ("upstream-redirect", "upstream-redirect", "failed", "upstream-redirect"),
        ("expired", "expired", "expired", "waiting"),
        ("internal", "internal", "failed", "internal"),
        ("caller-forbidden", "caller-forbidden", "failed", "caller-forbidden"),
        ("of another version", "other", "failed", "waiting"),
        *[(f"platform-status {status}", "content", "content", "waiting") for status in (400, 422)],
        *[(f"platform-status {status}", "rights", "rights", "waiting") for status in (401, 403)],
        *[(f"platform-status {status}", "gone", "gone", "waiting") for status in (404, 410)],
        *[
            (f"platform-status {status}", "conflict", "conflict", "waiting")
            for status in (409, 412)
        ],
        ("platform-status 418", "refused", "failed", "waiting"),
        ("platform-status 500", "trouble", "failed", "waiting"),
        ("platform-status 4", "other", "failed", "waiting"),
        ("platform-status \N{SUPERSCRIPT TWO}22", "other", "failed", "waiting"),
    ],
)
async def test_each_cause_has_an_explanation_and_a_remedy(
    there: Office, cause: str, kind: str, failed: str, waiting: str
) -> None:
    assert cause_kind(cause)[0] == kind
    assert remedy_kind("failed", cause) == failed
    assert remedy_kind("waiting", cause) == waiting
    assert remedy_kind("unclear", cause) == "unclear"
    entry_id = await there.put("a", cause=cause)
    for path in ("", f"/{entry_id}"):
        page = await there.see(path)
        assert (page.status, "What to do" in page.words) == (200, True)


NOTES = [each for name, each in vars(entry).items() if re.fullmatch(r"[A-Z_]+_NOTE", name)]


@pytest.mark.parametrize(
    "note", [*NOTES, entry.platform_status_note(418), Message("of an older one")]
)
async def test_a_note_is_in_the_language_of_the_page(there: Office, note: Message) -> None:
    """An unknown text is shown as that of another version."""
    entry_id = await there.unclear("a", note)
    for language in LANGUAGES:
        page = await there.see(f"/{entry_id}?lang={language}")
        told = entry.note_of(note).in_language(language)
        assert f"{Message('Note').in_language(language)} {told} " in page.words
        assert (str(note) in page.words) is (language == "en")


async def test_an_empty_outbox(there: Office) -> None:
    page = await there.see()
    assert "Nothing waits" in page.words
    assert "Why, and what to do" not in page.words
    await there.put("a")
    assert "Writes wait for the connection" in (await there.see()).words


async def test_without_operators_the_page_is_read_only(tmp_path: Path) -> None:
    async with office(tmp_path, operators=False, reveal=True) as there:
        ids = await fill(there)
        for path in ("", f"/{ids['content']}", "?sign-in"):
            page = await there.see(path)
            assert (page.status, page.forms) == (200, {})
            assert "admin.operators" in page.words
            assert PATIENT not in page.text
        form = {"id": ids["content"], "reason": "x", "token": ""}
        for path in ("/retry", "/drop", "/reveal"):
            assert (await there.send(path, form)).status == 403
        assert await there.state(ids["content"]) is EntryState.FAILED
        assert await there.notes() == []


async def test_the_page_is_read_only_before_a_sign_in(there: Office) -> None:
    ids = await fill(there)
    for path in ("", f"/{ids['content']}"):
        page = await there.see(path)
        assert (page.status, page.forms) == (200, {})
        assert "Sign in" in page.words
    for asked in (
        await there.see("?sign-in="),
        await there.see(**basic("dilnoza", "wrong")),
        await there.see(**basic("nobody", "")),
    ):
        assert asked.status == 401
        assert asked.headers["WWW-Authenticate"].startswith("Basic realm=")
    for headers in (DILNOZA, basic("aziz", AZIZ_PASSWORD)):
        page = await there.see("?sign-in=", **headers)
        assert (page.status, list(page.forms)) == (200, ["retry"])


@pytest.mark.parametrize(
    ("state", "status", "told"),
    [
        ("disabled", 404, "There is no outbox:"),
        ("away", 503, "The outbox cannot be reached now"),
    ],
)
async def test_a_disabled_or_unreachable_outbox(
    tmp_path: Path, state: str, status: int, told: str
) -> None:
    async with office(tmp_path, there=state) as there:
        for path in ("", f"/{NOBODY}"):
            page = await there.see(path, **DILNOZA)
            assert (page.status, page.forms) == (status, {})
            assert told in page.words


@pytest.mark.parametrize(("state", "listed"), [("open", True), ("disabled", False)])
async def test_the_index_lists_the_page_with_an_outbox_only(
    tmp_path: Path, state: str, listed: bool
) -> None:
    async with office(tmp_path, there=state) as there:
        root = await there.see("/../")
    assert ("/outbox" in json.loads(root.text)["links"]) is listed


async def test_an_operator_retries_an_entry(there: Office) -> None:
    ids = await fill(there)
    for name in ("rights", "unclear", "waiting"):
        page = await there.see(f"/{ids[name]}", **DILNOZA)
        done = await there.send("/retry", page.forms["retry"])
        assert (done.status, done.headers["Location"]) == (
            303,
            "../outbox?lang=en&said=retried&count=1",
        )
        assert await there.state(ids[name]) is EntryState.WAITING
    noted = [(each.step, each.entry, each.actor) for each in await there.notes()]
    by = Actor("page", "dilnoza")
    assert noted == [
        (OutboxStep.RETRIED, ids[name], by) for name in ("rights", "unclear", "waiting")
    ]
    told = await there.see("?said=retried&count=1")
    assert "Sent again: 1. The result" in told.words
    assert all(event.is_audit_pending for event in there.events)


async def test_an_operator_drops_an_entry_with_a_reason(there: Office) -> None:
    entry_id = (await fill(there))["content"]
    form = (await there.see(f"/{entry_id}", **DILNOZA)).forms["drop"]
    for reason in ("", "  \t "):
        assert (await there.send("/drop", {**form, "reason": reason})).status == 400
    assert await there.state(entry_id) is EntryState.FAILED
    assert (await there.send("/drop", {**form, "reason": " entered\nanew "})).status == 303
    assert await there.state(entry_id) is EntryState.DROPPED
    [note] = await there.notes()
    assert (note.step, note.entry) == (OutboxStep.DROPPED, entry_id)
    assert note.actor == Actor("page", "dilnoza", "entered anew")
    again = await there.send("/drop", {**form, "reason": "x"})
    assert (again.status, "The entry is in another state now" in again.words) == (409, True)
    assert (await there.see(f"/{entry_id}", **DILNOZA)).forms == {}
    assert (await there.send("/drop", {**form, "reason": "x", "id": NOBODY})).status == 404


async def test_an_operator_retries_all_failed_entries_of_a_cause(there: Office) -> None:
    ids = await fill(there)
    page = await there.see(**DILNOZA)
    form = {**page.forms["retry"], "cause": "platform-status 422"}
    done = await there.send("/retry", form)
    assert done.headers["Location"].endswith("said=retried&count=2")
    states = [await there.state(each) for each in ids.values()]
    waits, failed, unclear = EntryState.WAITING, EntryState.FAILED, EntryState.UNCLEAR
    assert states == [waits, waits, failed, unclear, waits, waits]
    assert {note.entry for note in await there.notes()} == {ids["content"], ids["again"]}


async def test_contents_are_shown_after_an_audited_form(revealing: Office) -> None:
    entry_id = (await fill(revealing))["content"]
    page = await revealing.see(f"/{entry_id}", **DILNOZA)
    assert PATIENT not in page.text
    assert revealing.records == []
    shown = await revealing.send("/reveal", page.forms["reveal"])
    assert shown.status == 200
    assert f"PUT Observation/content?of={PATIENT}" in shown.words
    assert f'{{"diagnostics":"{PATIENT}"}}' in shown.words
    [note] = revealing.records
    assert (note.step, note.entry, note.actor.operator) == (
        OutboxStep.REVEALED,
        entry_id,
        "dilnoza",
    )
    assert (await revealing.send("/reveal", {**page.forms["reveal"], "id": NOBODY})).status == 404


async def test_contents_are_not_shown_while_the_audit_is_unavailable(revealing: Office) -> None:
    """The access would not be audited."""
    entry_id = (await fill(revealing))["content"]
    form = (await revealing.see(f"/{entry_id}", **DILNOZA)).forms["reveal"]
    revealing.records.full = True
    unrecorded = Message(
        "Nothing is shown: the audit must first record who sees an entry, and it cannot be "
        "written now."
    )
    for language in LANGUAGES:
        refused = await revealing.send(f"/reveal?lang={language}", form)
        assert (refused.status, PATIENT in refused.text) == (503, False)
        assert unrecorded.in_language(language) in refused.words
    assert revealing.events == []
    revealing.records.full = False
    assert PATIENT in (await revealing.send("/reveal", form)).text
    assert [event.step for event in revealing.events] == [OutboxStep.REVEALED]


async def test_contents_are_not_shown_by_default(there: Office) -> None:
    entry_id = (await fill(there))["content"]
    page = await there.see(f"/{entry_id}", **DILNOZA)
    assert set(page.forms) == {"retry", "drop"}
    assert "outbox.reveal" in page.words
    shown = await there.send("/reveal", page.forms["retry"])
    assert (shown.status, PATIENT in shown.text) == (403, False)
    assert await there.notes() == []


@pytest.mark.parametrize(
    ("headers", "fields", "status"),
    [
        ({"Origin": "https://evil.test"}, {}, 403),
        ({"Origin": "null"}, {}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, {}, 403),
        ({"Sec-Fetch-Site": "same-site"}, {}, 403),
        ({"Sec-Fetch-Site": "none"}, {}, 403),
        ({}, {"token": ""}, 403),
        ({}, {"token": "ü" * 64}, 403),
        (basic("aziz", AZIZ_PASSWORD), {}, 403),
        ({"Authorization": ""}, {}, 401),
        (basic("dilnoza", "wrong"), {}, 401),
        ({"Content-Type": "text/plain"}, {}, 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, {}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded; charset=nonsense"}, {}, 400),
        ({}, {"more": "x" * 20_000}, 413),
    ],
)
async def test_a_forged_form_is_rejected(
    revealing: Office, headers: dict[str, str], fields: dict[str, str], status: int
) -> None:
    entry_id = await revealing.refused("a")
    forms = (await revealing.see(f"/{entry_id}", **DILNOZA)).forms
    assert forms.keys() == {"retry", "drop", "reveal"}
    for path, form in forms.items():
        sent = {**form, "reason": "x", **fields}
        refused = await revealing.send(f"/{path}", sent, **headers)
        assert (path, refused.status) == (path, status)
        assert PATIENT not in refused.text
    assert await revealing.state(entry_id) is EntryState.FAILED
    assert await revealing.notes() == []


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [("http://10.1.2.3/outbox", None, 403), (None, "10.1.2.3", 303)],
    ids=["of another", "its own"],
)
async def test_the_origin_of_a_form_is_compared_with_an_absolute_target(
    there: Office, target: str | None, host: str | None, status: int
) -> None:
    """The host of an absolute target overrides Host (RFC 9112 section 3.2.2)."""
    entry_id = await there.refused("a")
    form = (await there.see(f"/{entry_id}", **DILNOZA)).forms["retry"]
    url = f"{target or there.url + '/outbox'}/retry"
    own = there.url.removeprefix("http://")
    headers = {**DILNOZA, "Origin": there.url, "Host": host or own}
    # A client sends targets in absolute form to its proxy.
    async with aiohttp.request(
        "POST", url, headers=headers, data=form, proxy=there.url, allow_redirects=False
    ) as answer:
        assert answer.status == status


@pytest.mark.parametrize("path", ["/retry", "/drop", "/reveal"])
async def test_get_changes_nothing(revealing: Office, path: str) -> None:
    entry_id = await revealing.refused("a")
    token = (await revealing.see(f"/{entry_id}", **DILNOZA)).forms["drop"]["token"]
    asked = f"{path}?id={entry_id}&reason=x&token={token}"
    assert (await revealing.see(asked, **DILNOZA)).status == 405
    assert await revealing.state(entry_id) is EntryState.FAILED
    assert await revealing.notes() == []


async def test_wrong_passwords_are_limited(there: Office) -> None:
    for _ in range(20):
        assert (await there.see(**DILNOZA)).status == 200
    wrong = [(await there.see(**basic("dilnoza", str(n)))).status for n in range(12)]
    assert wrong == [401] * 10 + [429] * 2
    held = await there.see(**DILNOZA)
    assert (held.status, held.headers["Retry-After"]) == (429, "2")
    assert (await there.see()).status == 200
    there.clock.now += 1
    assert (await there.see(**DILNOZA)).status == 200


async def test_a_changed_password_takes_effect_at_once(there: Office) -> None:
    entry_id = await there.refused("a")
    form = (await there.see(f"/{entry_id}", **DILNOZA)).forms["retry"]
    there.operators.replace([("dilnoza", Secret("new"))])
    assert (await there.see(**DILNOZA)).status == 401
    assert (await there.send("/retry", form, **basic("dilnoza", "new"))).status == 303


async def test_responses_have_security_fields(revealing: Office) -> None:
    entry_id = await revealing.refused("a")
    page = await revealing.see(f"/{entry_id}", **DILNOZA)
    for answer in (
        page,
        await revealing.see(),
        await revealing.see(f"/{NOBODY}"),
        await revealing.see(**basic("dilnoza", "wrong")),
        await revealing.send("/reveal", page.forms["reveal"]),
        await revealing.send("/retry", page.forms["retry"]),
        await revealing.send("/retry", {}),
    ):
        policy = answer.headers["Content-Security-Policy"]
        for rule in ("default-src 'none'", "form-action 'self'", "frame-ancestors 'none'"):
            assert rule in policy
        assert "unsafe" not in policy
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        # With no-referrer the page's own forms would come with `Origin: null`.
        assert answer.headers["Referrer-Policy"] == "same-origin"
    assert (await revealing.see(Host="evil.test")).status == 421


async def test_entries_are_paged_and_filtered(there: Office) -> None:
    failed = await there.refused("failed")
    callers = ["lis"] + ["ris"] * (PAGE + 1) + ["lis"] * PAGE
    made = [await there.put(str(n), caller=caller) for n, caller in enumerate(callers)]
    seen: list[str] = []
    path = "?lang=en"
    while path:
        page = (await there.see(path)).text
        seen += LISTED.findall(page)
        found = re.search(r'<p class="more">.*href="outbox(\?[^"]*after=[^"#]*)', page)
        path = found[1].replace("&amp;", "&") if found else ""
    assert seen == [failed, *made]
    narrowed = (await there.see("?state=failed")).text
    assert LISTED.findall(narrowed) == [failed]
    narrowed = (await there.see("?caller=ris&cause=&state=waiting&after=nonsense")).text
    assert LISTED.findall(narrowed) == made[1 : PAGE + 1]
    assert "state=waiting" in narrowed


@pytest.mark.parametrize("count", ["-1", "x", "9" * 40, "²", "<b>"])
async def test_invalid_query_values_are_not_shown(there: Office, count: str) -> None:
    page = await there.see(f"?said=retried&count={count}&caller=<script>&cause=<b>&state=x")
    assert page.status == 200
    assert "<b>?" not in page.text
    assert "caller=<script>" not in page.text
    assert "<script>," not in page.text
    assert (await there.see(f"?after={count}")).status == 200
    assert (await there.see("?said=nonsense")).status == 200


@pytest.mark.parametrize("cause", ["platform-status%20%C2%B2", "platform-status%20", "%FF%00"])
async def test_an_unknown_cause_is_escaped(there: Office, cause: str) -> None:
    await there.refused("a")
    page = await there.see(f"?cause={cause}")
    assert page.status == 200
    assert LISTED.findall(page.text) == []


@pytest.mark.parametrize("path", ["?cause=%00", "?caller=lis%00", "?state=%00"])
async def test_a_filter_with_nul_matches_nothing_in_postgresql(
    in_postgresql: Office, path: str
) -> None:
    await in_postgresql.refused("a")
    page = await in_postgresql.see(path)
    assert page.status == 200
    assert len(LISTED.findall(page.text)) == ("state" in path)


async def test_forms_and_paths_with_nul_match_nothing_in_postgresql(in_postgresql: Office) -> None:
    entry_id = await in_postgresql.refused("a")
    page = await in_postgresql.see(f"/{entry_id}", **DILNOZA)
    retry, drop = page.forms["retry"], page.forms["drop"]
    assert (await in_postgresql.see(f"/{entry_id}%00")).status == 404
    assert (await in_postgresql.send("/retry", {**retry, "id": f"{entry_id}\0"})).status == 404
    everything = await in_postgresql.send("/retry", {**retry, "cause": "\0"})
    assert (everything.status, "count=0" in everything.headers["Location"]) == (303, True)
    gone = await in_postgresql.send("/drop", {**drop, "reason": "sent\0 by hand"})
    assert gone.status == 303
    assert await in_postgresql.state(entry_id) is EntryState.DROPPED


async def test_a_long_content_is_truncated(revealing: Office) -> None:
    answer = StoredResponse(422, body=b"x" * 300_000)
    entry_id = await revealing.ended("a", EntryState.FAILED, answer)
    form = (await revealing.see(f"/{entry_id}", **DILNOZA)).forms["reveal"]
    shown = await revealing.send("/reveal", form)
    assert "x" * 262_144 in shown.text
    assert "x" * 262_145 not in shown.text
    assert "The rest is left out: 300,000 bytes in all." in shown.words


async def test_a_finished_entry_has_no_forms(there: Office) -> None:
    entry_id = await there.put("a")
    [entry] = await claim(there.store, most=1, owner=ME)
    assert (await there.see(f"/{entry_id}", **DILNOZA)).forms == {}
    await finish(there.store, ME, entry, EntryState.DELIVERED, StoredResponse(200))
    page = await there.see(f"/{entry_id}", **DILNOZA)
    assert (page.status, page.forms) == (200, {})
    assert "State sent Caller" in page.words
