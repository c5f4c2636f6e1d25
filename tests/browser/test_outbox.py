"""The outbox page in a real browser."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.i18n import LANGUAGES, Message
from gateway.outbox.entry import EntryState
from tests.admin.office import PASSWORD, PATIENT, Office, fill, office
from tests.browser.conftest import BrowserUser
from tests.browser.pages import malicious_page
from tests.browser.test_status import (
    BROKEN,
    DESKTOP,
    PATIENCE,
    PHONE,
    SMALLER,
    WIDER,
    assert_accessible,
    no_complaints,
)

WIDTHS = (320, 390, 641, 1280)


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Office]:
    """Yield a page whose operators may see entries in full."""
    async with office(tmp_path, reveal=True) as made:
        yield made


async def sign_in(user: BrowserUser, there: Office, language: str = "en") -> None:
    """Open the page, and sign in as its link offers."""
    await user.do("sign", username="dilnoza", password=PASSWORD)
    await user.do("open", url=f"{there.url}/outbox?lang={language}")
    await user.do("click", selector=".who a")
    await user.do("wait", selector=".who", text="dilnoza")


async def fits(user: BrowserUser) -> None:
    """Check that each screen shows all of it, no heading broken and no text below 12 px."""
    for width in WIDTHS:
        await user.do("look", width=width, height=800)
        faults = [await user.run(script) for script in (BROKEN, WIDER, SMALLER)]
        assert faults == [[], [], []], f"{width} px"


@pytest.mark.parametrize("language", LANGUAGES)
async def test_the_page_fits_every_screen(user: BrowserUser, there: Office, language: str) -> None:
    ids = await fill(there)
    await user.do("open", url=f"{there.url}/outbox?lang={language}")
    await fits(user)
    await sign_in(user, there, language)
    verdict = Message("Entries wait for your decision").in_language(language)
    seen = await user.do("wait", selector="#care", text=verdict)
    assert "UTC" not in seen["text"]
    await fits(user)
    await user.do("open", url=f"{there.url}/outbox/{ids['content']}?lang={language}")
    await user.do("click", selector="form[action*=reveal] button")
    await user.do("wait", selector="#contents", text=PATIENT)
    await fits(user)
    await no_complaints(user)


async def test_the_page_is_accessible(user: BrowserUser, there: Office) -> None:
    ids = await fill(there)
    await sign_in(user, there)
    for path in ("", f"/{ids['content']}"):
        await user.do("open", url=f"{there.url}/outbox{path}?lang=en")
        for size, scheme in ((DESKTOP, "dark"), (PHONE, "light")):
            await user.do("look", **size, scheme=scheme)
            await assert_accessible(user)


async def test_an_operator_decides_without_a_mouse(user: BrowserUser, there: Office) -> None:
    entry_id = await there.refused("a")
    await sign_in(user, there)
    await user.run("document.querySelector('#entries-rows a').focus()")
    await user.do("press", key="Enter")
    await user.do("wait", selector="#entry", text=entry_id)
    await user.run("document.querySelector('#reason').focus()")
    await user.do("press", key="Enter")
    assert await user.run("document.querySelector('#reason').validity.valueMissing")
    assert await there.state(entry_id) is EntryState.FAILED
    await user.do("fill", selector="#reason", value="entered anew")
    await user.do("press", key="Tab")
    assert await user.run("document.activeElement.textContent") == "Drop"
    await user.do("press", key="Enter")
    await user.do("wait", selector=".news", text="The entry is dropped.")
    assert await there.state(entry_id) is EntryState.DROPPED
    [note] = await there.notes()
    assert (note.actor.operator, note.actor.reason) == ("dilnoza", "entered anew")
    await no_complaints(user)


async def test_all_entries_of_a_cause_are_retried_by_one_click(
    user: BrowserUser, there: Office
) -> None:
    ids = await fill(there)
    await sign_in(user, there)
    await user.do("click", selector="#reasons form button")
    told = "Sent again: 2. The result will appear here."
    await user.do("wait", selector=".news", text=told)
    states = [await there.state(ids[name]) for name in ("content", "again", "rights")]
    assert states == [EntryState.WAITING, EntryState.WAITING, EntryState.FAILED]


async def test_a_page_of_another_origin_cannot_decide(user: BrowserUser, there: Office) -> None:
    entry_id = await there.refused("a")
    await sign_in(user, there)
    token = there.operators.form_token("dilnoza")
    fields = json.dumps({"id": entry_id, "token": token, "reason": "x"})
    async with malicious_page() as evil:
        await user.do("open", tab=1, url=evil)
        for path in ("retry", "drop"):
            url = f"{there.url}/outbox/{path}"
            await user.run(
                f"""(() => {{
                  const form = document.getElementById("form");
                  form.action = {json.dumps(url)};
                  form.innerHTML = "";
                  for (const [name, value] of Object.entries({fields})) {{
                    const field = document.createElement("input");
                    Object.assign(field, {{ type: "hidden", name, value }});
                    form.append(field);
                  }}
                  form.submit();
                }})()""",
                tab=1,
            )
            assert await status_of(user, url) == 403
    assert await there.state(entry_id) is EntryState.FAILED
    assert await there.notes() == []


async def status_of(user: BrowserUser, url: str) -> int:
    """Return the status that the browser got at last."""
    async with asyncio.timeout(PATIENCE):
        while True:
            traffic = (await user.do("seen"))["traffic"]
            if found := [each["status"] for each in traffic if each["url"] == url]:
                return int(found[-1])
            await asyncio.sleep(0.05)
