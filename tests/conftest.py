"""Fixtures of every test, and the rule that no test skips where everything is installed.

A reason to skip says `make test-tools` where that installs what is missing, or `needs root`, or
`needs Python 3.12`: CI runs those tests with a newer one.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
import tempfile
from asyncio.selector_events import BaseSelectorEventLoop
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import trustme
from aiohttp.web_app import _cached_build_middleware
from xdist.scheduler import LoadScopeScheduling

from gateway.os_support import raise_open_file_limit
from tests.doubles.platform import Platform
from tests.doubles.sso import Sso
from tests.interop import table

# The time that an example takes depends on the machine.
hypothesis.settings.register_profile(
    "any-machine",
    deadline=None,
    suppress_health_check=(
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.filter_too_much,  # a few examples may be unlucky ones
    ),
)
hypothesis.settings.load_profile("any-machine")
# The same few examples each time, for `make test` without TESTS.
hypothesis.settings.register_profile(
    "few", hypothesis.settings.get_profile("any-machine"), max_examples=20, derandomize=True
)

# By the value of DHP_NO_SKIPS: the reasons for which a test may still skip.
_ROOT = "needs root"
_NEWER = "needs Python 3.12"
_ALLOWED = {"1": (_NEWER,), "but-root": (_ROOT, _NEWER)}
# A part of the reasons, and the text of the summary for those tests.
_KINDS = {
    "make test-tools": "lack a program (`make test-tools` installs all of them)",
    _ROOT: "need root",
    _NEWER: "need a newer Python",
    "": "cannot run here",
}


@pytest.fixture
def ca(tmp_path: Path) -> trustme.CA:
    """A hospital's own CA, whose certificate is in `ca.pem`."""
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    return made


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    """Yield a platform that responds with a Patient unless a test specifies another response."""
    async with Platform() as double:
        yield double


@pytest.fixture
async def sso() -> AsyncIterator[Sso]:
    """Yield an SSO that issues numbered tokens unless a test specifies another response."""
    async with Sso() as double:
        yield double


def _forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Count a skip as a failure with DHP_NO_SKIPS=1, so that CI cannot lose tests unnoticed.

    With DHP_NO_SKIPS=but-root, for a run without root, tests that need root may skip. Those that
    need a newer Python may always.
    """
    allowed = _ALLOWED.get(os.environ.get("DHP_NO_SKIPS", ""))
    if allowed is None or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = _reason(report)
    if not any(each in reason for each in allowed):
        report.outcome = "failed"
        report.longrepr = f"DHP_NO_SKIPS forbids skipping. {reason}"


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)


def _skipped(reasons: Iterable[str]) -> str:
    """Return one line that summarises all skips."""
    kinds = Counter(next(each for each in _KINDS if each in reason) for reason in reasons)
    summary = ", ".join(f"{kinds[each]} {_KINDS[each]}" for each in _KINDS if kinds[each])
    return f"{kinds.total()} skipped: {summary}. The reasons: make test TESTS=-rs"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Name the table cell of a test, even if its fixtures fail."""
    table.place(item)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter,
) -> Generator[None, None, None]:
    """Print the tables of servers of others, and the skips in one line, after the failures."""
    yield
    reports_of_all = (each for kind in terminalreporter.stats.values() for each in kind)
    for line in table.lines(each for each in reports_of_all if isinstance(each, pytest.TestReport)):
        terminalreporter.write_line(line)
    if reports := terminalreporter.getreports("skipped"):
        terminalreporter.write_line(_skipped(map(_reason, reports)))


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Print a failure at once, because an aborted run has no summary."""
    if not report.failed:
        return None
    category = "failed" if report.when == "call" else "error"
    letter = f"{category[0].upper()}\n{report.nodeid}\n{report.longreprtext}\n"
    return category, letter, category.upper()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Apply `_forbid_skip` to the outcome of each test."""
    report = yield
    _forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Apply `_forbid_skip` to modules that skip as a whole while they are collected."""
    report = yield
    _forbid_skip(report)
    return report


# By the start of the path: modules that share an expensive fixture, and modules that take long. The
# longest come first, so that none of them runs alone at the end.
_GROUPS = {
    "tests/interop/sso/": "",
    "tests/interop/test_fhir_servers.py": "",
    "tests/interop/": "interop",
    "tests/deploy/test_image.py": "image",
    "tests/browser/": "browser",
    "tests/legacy/": "legacy",
    "tests/simulation/": "",
    "tests/deploy/test_offline.py": "offline",
    "tests/outbox/path/test_conditions.py": "",
    "tests/lifecycle/test_truth.py": "",
    "tests/test_supply_chain.py": "",
    "tests/deploy/test_alerts.py": "night",
    "tests/deploy/test_dashboards.py": "night",
    "tests/deploy/test_boot.py": "boot",
    "tests/fuzz/": "",
    "tests/benchmarks/test_smoke.py": "",
    "tests/deploy/test_windows.py": "",
    "tests/deploy/test_targets.py": "manifests",
    "tests/deploy/test_helm.py": "manifests",
    "tests/deploy/test_kubernetes.py": "manifests",
    "tests/deploy/test_compose.py": "manifests",
    "tests/test_quick_start.py": "",
    "tests/wire/test_every_byte.py": "",
    "tests/lifecycle/": "",
    "tests/cli/": "",
    "tests/outbox/test_model.py": "",
    "tests/store/test_replicas.py": "",
    "tests/wire/test_strictness.py": "",
    "tests/deploy/test_rules.py": "",
    "tests/outbox/": "",
}


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without garbage collection, because nearly all the objects made live to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, object, object]:
    """Empty aiohttp's cache of middlewares, which keeps the last 1,024 applications alive.

    With a gateway behind each, the garbage collector would stop all else for seconds.
    """
    try:
        return (yield)
    finally:
        _cached_build_middleware.cache_clear()


def _group_prefix(nodeid: str) -> str | None:
    return next((start for start in _GROUPS if nodeid.startswith(start)), None)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests so that long ones come first when several processes run."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        order = {start: place for place, start in enumerate(_GROUPS)}
        items.sort(key=lambda item: order.get(_group_prefix(item.nodeid) or "", len(order)))


class _Groups(LoadScopeScheduling):
    """Gives all tests of a group, or else of a module, to one process."""

    def _split_scope(self, nodeid: str) -> str:
        start = _group_prefix(nodeid)
        return (start and _GROUPS[start]) or nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Groups:
    return _Groups(config, log)


def pytest_handlecrashitem(crashitem: str) -> None:
    """End the run when a test kills its process.

    Otherwise the schedulers by scope may lose the rest of its module, or wait for it forever.
    """
    pytest.exit(f"{crashitem} killed its process", returncode=3)


_ACCEPT = "_accept_connection2"
_accept = getattr(BaseSelectorEventLoop, _ACCEPT)


async def _accept_or_close(
    loop: BaseSelectorEventLoop,
    factory: Callable[[], asyncio.BaseProtocol],
    accepted: socket.socket,
    extra: dict[str, Any],
    sslcontext: ssl.SSLContext | None = None,
    server: asyncio.Server | None = None,
    *timeouts: float | None,
) -> None:
    """Close a connection whose server was closed after it was accepted.

    asyncio leaves it to the garbage collector: `Server._attach` fails while the transport is made.
    """
    if server is not None and not server.sockets:
        accepted.close()
    else:
        await _accept(loop, factory, accepted, extra, sslcontext, server, *timeouts)


def _ask_for_programs_in_temporary_folders() -> None:
    temporary = tempfile.gettempdir()
    if os.statvfs(temporary).f_flag & os.ST_NOEXEC:
        raise pytest.UsageError(
            f"{temporary} is mounted with noexec, and tests start programs there. Name another"
            " folder: TMPDIR=/var/tmp make test"
        )


def pytest_configure(config: pytest.Config) -> None:
    """Raise the limit of open files as gateways do, and close what asyncio leaves open."""
    _ask_for_programs_in_temporary_folders()
    raise_open_file_limit()
    setattr(BaseSelectorEventLoop, _ACCEPT, _accept_or_close)
    for each in table.MARKERS:
        config.addinivalue_line("markers", each)
