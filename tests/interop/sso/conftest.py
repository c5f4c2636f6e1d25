"""The servers of the table: each runs for the tests of a module, which share what was observed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.browser.conftest import running_browser
from tests.interop import table
from tests.interop.sso.client_scenario import ClientScenario
from tests.interop.sso.rows import ClientRows, SignInRows
from tests.interop.sso.sign_in_scenario import SignInScenario
from tests.interop.sso.stage import Stage

_ROWS = (ClientRows, SignInRows)


def _rows(item: pytest.Item) -> type[ClientRows] | type[SignInRows] | None:
    found = getattr(item, "cls", None)
    return found if found and issubclass(found, _ROWS) else None


def pytest_itemcollected(item: pytest.Item) -> None:
    """Name the column of a row."""
    if rows := _rows(item):
        item.add_marker(pytest.mark.column("SSO", rows.server.name))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Pass a row that the server does not offer, and say why."""
    rows = _rows(pyfuncitem)
    reason = rows.server.not_offered.get(row_of(pyfuncitem)) if rows else None
    if reason is None:
        return None
    table.not_offered(pyfuncitem, reason)
    return True


def row_of(item: pytest.Function) -> str:
    """Return the name of a row as `not_offered` has it."""
    return item.originalname.removeprefix("test_")


@pytest.fixture(scope="session")
def browser() -> Iterator[int]:
    with running_browser() as port:
        yield port


@dataclass(slots=True)
class Scenarios:
    """The concurrent scenarios of a module, and where they were played."""

    stage: Stage
    client: ClientScenario
    sign_in: SignInScenario | None
    operator_output: dict[str, str]


def _items(request: pytest.FixtureRequest) -> list[pytest.Item]:
    return [each for each in request.session.items if each.path == request.node.path]


@pytest.fixture(scope="module")
def scenarios(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scenarios]:
    """Yield what was observed of the module's server, behind its front, with a platform.

    A server that crashed gets a second chance: its faults are not what the rows are about.
    """
    classes = {rows for rows in map(_rows, _items(request)) if rows is not None}
    (kind,) = {each.server for each in classes}
    for is_last in (False, True):
        stage = Stage.of(kind, tmp_path_factory.mktemp(kind.name))
        with contextlib.closing(stage):
            stage.open()
            played = _play(request, stage, classes)
            if is_last or not stage.server.has_crashed():
                yield played
                return
        print(f"{kind.name} crashed")  # noqa: T201


def _play(
    request: pytest.FixtureRequest, stage: Stage, classes: set[type[ClientRows] | type[SignInRows]]
) -> Scenarios:
    client = ClientScenario(stage)
    sign_in = None
    if any(issubclass(each, SignInRows) for each in classes):
        sign_in = SignInScenario(stage, request.getfixturevalue("browser"))
    has_clients = any(issubclass(each, ClientRows) for each in classes)

    async def run_all() -> dict[str, str]:
        async with asyncio.TaskGroup() as group:
            if sign_in is not None:
                group.create_task(sign_in.run_all())
            if has_clients:
                group.create_task(client.run_all(None if sign_in is None else sign_in.ended))
        return await stage.operator_output()

    return Scenarios(stage, client, sign_in, stage.begin(run_all()).result())


@pytest.fixture(scope="module")
def stage(scenarios: Scenarios) -> Stage:
    return scenarios.stage


@pytest.fixture(autouse=True)
def _version(request: pytest.FixtureRequest, stage: Stage) -> None:
    text = f"{stage.server.version()}, started in {stage.seconds:.1f} s"
    table.describe(request.node, text)


@pytest.fixture
def operator_output(scenarios: Scenarios) -> dict[str, str]:
    """Return logs, audit, metrics and pages of all gateways of the module."""
    return scenarios.operator_output


@pytest.fixture
def client_scenario(scenarios: Scenarios) -> ClientScenario:
    return scenarios.client


@pytest.fixture
def sign_in_scenario(scenarios: Scenarios) -> SignInScenario:
    assert scenarios.sign_in is not None
    return scenarios.sign_in
