"""The outbox page of a running gateway, over reloads."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.outbox.entry import EntryState, StoredResponse
from tests.admin.office import Seen, basic
from tests.lifecycle.conftest import Service, StartService
from tests.lifecycle.test_reload import wait_until_reloaded
from tests.outbox.attempts import ME, claim, finish
from tests.outbox.drafts import draft
from tests.outbox.places import KEY, SqlitePlace, opened

REASON = "entered anew by the ward"


async def fetch_page(service: Service, method: str, path: str, password: str, **form: str) -> Seen:
    """Return a page below `/outbox`, as the operator Dilnoza gets it."""
    connector = aiohttp.UnixConnector(service.admin.path or "")
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.request(
            method,
            f"http://localhost/outbox{path}",
            headers=basic("dilnoza", password),
            data=form or None,
            allow_redirects=False,
        ) as response,
    ):
        return Seen(response.status, dict(response.headers), await response.text())


async def failed_in(place: SqlitePlace, *names: str) -> list[str]:
    """Enqueue writes that the platform rejects, and return their ids."""
    async with opened(place) as store:
        for name in names:
            await store.enqueue(draft(name))
        for entry in await claim(store):
            assert await finish(store, ME, entry, EntryState.FAILED, StoredResponse(422))
        return [entry.id for entry in await store.entries()]


async def recorded(service: Service, count: int) -> list[dict[str, Any]]:
    """Return the audit records of operators' decisions, once there are so many."""
    while True:
        found = [each for each in service.audit("outbox") if "operator" in each]
        if len(found) >= count:
            return found
        await asyncio.sleep(0.05)


async def revealing(start_service: StartService, folder: Path, **sections: Any) -> Service:
    """Return a service whose operator may see patients, with the password in the folder."""
    password = folder / "password"
    password.write_text("first\n")
    return await start_service.ready(
        outbox={
            "enabled": True,
            "url": f"sqlite:///{folder}/outbox.db",
            "encryption_key": base64.urlsafe_b64encode(KEY).decode(),
            "reveal": True,
        },
        admin={"operators": [{"name": "dilnoza", "password_file": str(password)}]},
        **sections,
    )


@pytest.mark.parametrize("sink", ["stdout", "file"])
async def test_revealing_a_patient_is_audited_before_the_response(
    start_service: StartService, tmp_path: Path, sink: str
) -> None:
    path = tmp_path / "audit.jsonl"
    shown = await failed_in(SqlitePlace(tmp_path / "outbox.db"), "a", "b", "c")
    audit = {"sink": "stdout"} if sink == "stdout" else {"sink": "file", "path": str(path)}
    service = await revealing(start_service, tmp_path, audit=audit)
    form = (await fetch_page(service, "GET", f"/{shown[0]}", "first")).forms["drop"]
    for entry_id in shown:
        sent = {"token": form["token"], "id": entry_id}
        assert (await fetch_page(service, "POST", "/reveal", "first", **sent)).status == 200
        text = path.read_text() if sink == "file" else service.process.stdout
        steps = [each for each in map(json.loads, text.splitlines()) if "operator" in each]
        assert (steps[-1]["step"], steps[-1]["entry"]) == ("revealed", entry_id)


async def test_decisions_are_audited_and_sighup_changes_the_password(
    start_service: StartService, tmp_path: Path
) -> None:
    """A reload with an unreadable password changes nothing."""
    dropped, retried, shown = await failed_in(SqlitePlace(tmp_path / "outbox.db"), "a", "b", "c")
    service = await revealing(start_service, tmp_path)
    form = (await fetch_page(service, "GET", f"/{dropped}", "first")).forms["drop"]
    done = await fetch_page(service, "POST", "/drop", "first", **{**form, "reason": REASON})
    assert done.status == 303
    for path, entry_id in (("/reveal", shown), ("/retry", retried)):
        token = {"token": form["token"], "id": entry_id}
        assert (await fetch_page(service, "POST", path, "first", **token)).status < 400
    steps = {each["step"]: each for each in await recorded(service, 3)}
    assert {step: each["entry"] for step, each in steps.items()} == {
        "dropped": dropped,
        "revealed": shown,
        "retried": retried,
    }
    assert {(each["operator"], each["by"]) for each in steps.values()} == {("dilnoza", "page")}
    assert [each["step"] for each in steps.values() if each.get("reason") == REASON] == ["dropped"]
    (tmp_path / "password").unlink()
    service.send(signal.SIGHUP)
    await wait_until_reloaded(service, 1, "failed")
    assert (await fetch_page(service, "GET", "", "first")).status == 200
    (tmp_path / "password").write_text("second\n")
    service.send(signal.SIGHUP)
    await wait_until_reloaded(service, 1)
    assert (await fetch_page(service, "GET", "", "first")).status == 401
    assert (await fetch_page(service, "GET", "", "second")).forms
