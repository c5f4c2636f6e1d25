"""The modules that a serving process loads; all of them stay in memory."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import aiohttp

from tests.doubles.platform import Platform
from tests.doubles.processes import start_gateway
from tests.doubles.sections import gateway_settings
from tests.doubles.sso import Sso

# Of commands, of features that are off by default, and what libraries would load for nothing.
NOT_NEEDED = [
    *("aiohttp.web", "apprise", "argparse", "cryptography", "difflib"),
    # Of pages and their translations.
    *("babel", "jinja2", "markupsafe"),
    *("joserfc", "opentelemetry", "redis", "sqlalchemy", "xml.parsers.expat"),
    *("gateway.app.outbox_service", "gateway.outbox", "gateway.sandbox"),
    "gateway.app.login_setup",
]


async def loaded(platform: Platform, sso: Sso, tmp_path: Path) -> set[str]:
    """Return the names of all modules and their packages, after a forwarded request."""
    settings = gateway_settings(platform.url, sso.token_url)
    gateway = start_gateway(settings, tmp_path, ("env", "PYTHONPROFILEIMPORTTIME=1"))
    try:
        await gateway.wait_for_status(200)
        async with aiohttp.request("GET", f"{gateway.url}/Patient/1") as response:
            assert response.status == 200
    finally:
        gateway.process.terminate()
    lines = gateway.process.stderr.splitlines()
    names = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    parts = [name.split(".") for name in names]
    return {".".join(each[:length]) for each in parts for length in range(1, len(each) + 1)}


async def test_what_is_not_needed_is_not_loaded(tmp_path: Path) -> None:
    """With default settings nothing of commands and disabled features is loaded."""
    async with Platform() as platform, Sso() as sso:
        found = await loaded(platform, sso, tmp_path)
    assert "gateway.app.application" in found
    # Under another name a module would not be found.
    assert [name for name in NOT_NEEDED if find_spec(name) is None] == []
    assert [name for name in NOT_NEEDED if name in found] == []
