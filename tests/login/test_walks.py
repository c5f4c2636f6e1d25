"""The walk of a sign-in that docs/architecture.md prints, held against one on its way."""

from __future__ import annotations

import pytest

from tests.doubles.walks import of, steps, walk
from tests.login.stage import Stage

pytestmark = pytest.mark.interpreted


async def test_the_walk_of_a_sign_in(scene: Stage) -> None:
    browser = await scene.browser()
    with steps() as taken:
        await browser.sign_in()
        read = await browser.get("/fhir/Patient")
    assert read.status == 200
    printed = walk("The walk of a sign-in")
    assert of(printed, taken) == printed
    assert (len(printed), len({file for _, file in printed})) == (13, 8)
