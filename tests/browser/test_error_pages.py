"""Errors of the gateway in a real browser are pages in the user's language."""

from __future__ import annotations

import pytest

from tests.browser.conftest import BrowserUser
from tests.browser.test_status import SMALLER
from tests.doubles.gateway import running_gateway
from tests.doubles.sso import Sso

_FITS = "document.documentElement.scrollWidth <= window.innerWidth"
_IS_STYLED = "getComputedStyle(document.querySelector('main')).borderTopStyle === 'solid'"


@pytest.mark.parametrize(
    ("language", "title", "words"),
    [
        ("en-US,en;q=0.9", "This page cannot be shown", "could not connect to the platform"),
        ("ru-RU,ru;q=0.9,en;q=0.8", "Эту страницу показать нельзя", "платформ"),
        ("uz-UZ,uz;q=0.9,ru;q=0.8", "Bu sahifani ko‘rsatib bo‘lmaydi", "platforma"),
    ],
)
async def test_an_error_is_a_page_in_the_users_language(
    user: BrowserUser, language: str, title: str, words: str
) -> None:
    async with Sso() as sso, running_gateway("http://127.0.0.1:1/fhir", sso.token_url) as gateway:
        url = f"{gateway.url}/Patient/1"
        await user.do("speak", language=language)
        assert await user.do("open", url=url) == {"url": url, "status": 503}
        await user.do("look", width=320, height=560)
        page = await user.do("wait", selector="h1", text=title)
        assert words in page["text"]
        assert "upstream-unreachable" in page["text"]
        assert await user.run(_FITS)
        assert await user.run(_IS_STYLED)
        assert await user.run(SMALLER) == []
        assert (await user.do("axe"))["violations"] == []
        complaints = (await user.do("complaints"))["complaints"]
        assert not [each for each in complaints if "Content Security" in each]
