"""The outbox's page in a real browser: seen on every screen, decided upon by keyboard."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.i18n import LANGUAGES, Message
from gateway.outbox.entry import EntryState
from tests.admin.office import PASSWORD, PATIENT, Office, fill, office
from tests.browser.conftest import Person
from tests.browser.pages import evil_page
from tests.browser.test_status import (
    BROKEN,
    DESKTOP,
    PATIENCE,
    PHONE,
    WIDER,
    no_complaints,
    no_obstacles,
)

WIDTHS = (320, 390, 641, 1280)


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Office]:
    """A page whose operators may see entries in full."""
    async with office(tmp_path, reveal=True) as made:
        yield made


async def sign_in(person: Person, there: Office, language: str = "en") -> None:
    """Open the page, and sign in as its link offers."""
    await person.do("sign", username="dilnoza", password=PASSWORD)
    await person.do("open", url=f"{there.url}/outbox?lang={language}")
    await person.do("click", selector=".who a")
    await person.do("wait", selector=".who", text="dilnoza")


async def fits(person: Person) -> None:
    """Nothing is wider than any screen, and no word of a head is broken."""
    for width in WIDTHS:
        await person.do("look", width=width, height=800)
        assert (await person.run(BROKEN), await person.run(WIDER)) == ([], []), f"{width} px"


@pytest.mark.parametrize("language", LANGUAGES)
async def test_the_page_fits_every_screen(person: Person, there: Office, language: str) -> None:
    """The list, for reading and for deciding, and an entry in full: on a desk and on a phone."""
    ids = await fill(there)
    await person.do("open", url=f"{there.url}/outbox?lang={language}")
    await fits(person)
    await sign_in(person, there, language)
    verdict = Message("Entries wait for your decision").in_language(language)
    seen = await person.do("wait", selector="#care", text=verdict)
    assert "UTC" not in seen["text"]
    await fits(person)
    await person.do("open", url=f"{there.url}/outbox/{ids['content']}?lang={language}")
    await person.do("click", selector="form[action*=reveal] button")
    await person.do("wait", selector="#contents", text=PATIENT)
    await fits(person)
    await no_complaints(person)


async def test_nobody_meets_an_obstacle(person: Person, there: Office) -> None:
    """Nothing serious for those who cannot see, or not well, light and dark."""
    ids = await fill(there)
    await sign_in(person, there)
    for path in ("", f"/{ids['content']}"):
        await person.do("open", url=f"{there.url}/outbox{path}?lang=en")
        for size, scheme in ((DESKTOP, "dark"), (PHONE, "light")):
            await person.do("look", **size, scheme=scheme)
            await no_obstacles(person)


async def test_an_operator_decides_without_a_mouse(person: Person, there: Office) -> None:
    """Tab and Enter lead to an entry; without a reason nothing is dropped, with one it is."""
    entry_id = await there.refused("a")
    await sign_in(person, there)
    await person.run("document.querySelector('#entries-rows a').focus()")
    await person.do("press", key="Enter")
    await person.do("wait", selector="#entry", text=entry_id)
    await person.run("document.querySelector('#reason').focus()")
    await person.do("press", key="Enter")
    assert await person.run("document.querySelector('#reason').validity.valueMissing")
    assert await there.state(entry_id) is EntryState.FAILED
    await person.do("fill", selector="#reason", value="entered anew")
    await person.do("press", key="Tab")
    assert await person.run("document.activeElement.textContent") == "Drop"
    await person.do("press", key="Enter")
    await person.do("wait", selector=".news", text="The entry is dropped.")
    assert await there.state(entry_id) is EntryState.DROPPED
    [note] = await there.notes()
    assert (note.actor.operator, note.actor.reason) == ("dilnoza", "entered anew")
    await no_complaints(person)


async def test_all_of_a_cause_are_sent_once_more(person: Person, there: Office) -> None:
    """One click, and the page says how many."""
    ids = await fill(there)
    await sign_in(person, there)
    await person.do("click", selector="#reasons form button")
    told = "Sent once more: 2. How it ends, you will see here."
    await person.do("wait", selector=".news", text=told)
    states = [await there.state(ids[name]) for name in ("content", "again", "rights")]
    assert states == [EntryState.WAITING, EntryState.WAITING, EntryState.FAILED]


async def test_a_page_of_another_site_does_nothing(person: Person, there: Office) -> None:
    """Not even with a form that the browser sends with the operator's password and token."""
    entry_id = await there.refused("a")
    await sign_in(person, there)
    token = there.operators.form_token("dilnoza")
    fields = json.dumps({"id": entry_id, "token": token, "reason": "x"})
    async with evil_page() as evil:
        await person.do("open", tab=1, url=evil)
        for path in ("retry", "drop"):
            url = f"{there.url}/outbox/{path}"
            await person.run(
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
            assert await answered(person, url) == 403
    assert await there.state(entry_id) is EntryState.FAILED
    assert await there.notes() == []


async def answered(person: Person, url: str) -> int:
    """The status that the browser got there at last."""
    async with asyncio.timeout(PATIENCE):
        while True:
            traffic = (await person.do("seen"))["traffic"]
            if found := [each["status"] for each in traffic if each["url"] == url]:
                return int(found[-1])
            await asyncio.sleep(0.05)
