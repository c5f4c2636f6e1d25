"""Examines a set-up from the settings to the platform's capability statement.

One finding for each step, in the order in which a person would look for a fault; a step that needs
a failed one is left out and says so. Every failure comes with what to do next.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from email.utils import parsedate_to_datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

import aiohttp
import orjson

from gateway import os_support
from gateway.commands import doctor_files, doctor_login, doctor_sso, notify
from gateway.commands.findings import Finding, Side
from gateway.commands.healthcheck import get_readiness
from gateway.commands.ways import way_to
from gateway.config import Address, SecretUnreadable, Settings
from gateway.config.secret_files import exposure, oddity
from gateway.duration import in_words
from gateway.oauth.token_response import TokenResponse
from gateway.process.certificates import platform_tls, sso_tls
from gateway.process.factories import credentials_in_use

# A token is checked by its times: a minute is what most servers forgive.
_MOST_SKEW: Final = 60.0
_SET_CLOCK: Final = (
    "timedatectl set-ntp true" if os_support.HAS_FILE_MODES else "w32tm /resync, as administrator"
)


async def run(settings: Settings, say: Callable[[str], object] | None) -> list[Finding]:
    """Examine everything; with `say` each finding's line is given to it as soon as it is made."""
    findings = []
    async for finding in examine(settings):
        findings.append(finding)
        if say is not None:
            say(finding.line())
    return findings


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """All findings, as they are made. Opens connections; changes nothing anywhere."""
    yield Finding("settings", "ok", f"environment {settings.environment}")
    here = (_secret_files, doctor_files.examine, _listeners, _operators)
    for finding in chain.from_iterable(look(settings) for look in here):
        yield finding
    sso, platform = _sides(settings)
    reached: dict[str, bool] = {}
    for side, proxy in (
        (sso, settings.sso.proxy_url),
        (platform, settings.platform.proxy_url),
    ):
        findings = [finding async for finding in way_to(side, proxied=proxy is not None)]
        if side is sso:
            findings = [doctor_sso.with_addresses(settings, finding) for finding in findings]
        reached[side.name] = all(finding.state != "failed" for finding in findings)
        for finding in findings:
            yield finding
    has_token = False
    async for finding in _conversation(settings, sso, platform, reached):
        has_token |= finding.check.startswith("token ") and finding.state == "ok"
        yield finding
    async for finding in doctor_login.examine(settings, sso_reached=reached[sso.name]):
        yield finding
    async for finding in notify.examine(settings):
        yield finding
    sides = [side for side in (sso, platform) if reached[side.name]]
    async for finding in doctor_sso.documents(settings, sides, has_token=has_token):
        yield finding


def _sides(settings: Settings) -> tuple[Side, Side]:
    sso, platform = settings.sso, settings.platform
    return (
        Side("SSO", sso.token_url, "sso.token_url", partial(sso_tls, settings), sso.timeout),
        Side(
            "platform",
            platform.fhir_base_url,
            "platform.fhir_base_url",
            partial(platform_tls, settings),
            platform.connect_timeout,
        ),
    )


def _secret_files(settings: Settings) -> Iterator[Finding]:
    for source in settings.secret_sources():
        check = f"secret {source.key}"
        if source.file is None:
            hint = "Better keep it in a file that only the gateway can read"
            yield Finding(check, "ok", "given in the settings themselves", hint)
            continue
        try:
            secret = source.read()
            finding = _permissions(check, source.file)
        except SecretUnreadable as error:
            hint = f"{error.hint[0].upper()}{error.hint[1:]}"
            yield Finding(check, "failed", f"{error.path}: {error.why}", hint)
        except OSError as error:
            yield Finding(check, "failed", f"{source.file} {error.strerror}", "Check the path")
        else:
            odd = None if secret is None else oddity(secret)
            told = f"What is in it {odd}: is that meant?" if odd is not None else finding.hint
            yield replace(finding, hint=told) if finding.state == "ok" else finding


def _permissions(check: str, path: Path) -> Finding:
    if not os_support.HAS_FILE_MODES:
        hint = f"Look who may read it: icacls {path}"
        return Finding(check, "ok", f"{path} can be read", hint)
    if (exposed := exposure(path)) is not None:
        return Finding(check, "failed", f"{path} {exposed}", f"Run: chmod 0600 {path}")
    mode = stat.S_IMODE(path.stat().st_mode)
    return Finding(check, "ok", f"{path} can be read, by few (mode {mode:04o})")


def _listeners(settings: Settings) -> Iterator[Finding]:
    running = _is_running(settings.admin.address)
    for key, address in (
        ("listen.address", settings.listen.address),
        ("admin.address", settings.admin.address),
    ):
        check = f"listener {key}"
        try:
            _try_to_listen(address)
        except OSError as error:
            if running and error.errno == errno.EADDRINUSE:
                yield Finding(check, "ok", f"{address} is in use by the gateway that runs")
                continue
            reason = (os.strerror(error.errno) if error.errno else str(error)).lower()
            hint = (
                f"Another program listens there; end it or change {key}. To see who it is: ss -ltnp"
            )
            yield Finding(check, "failed", f"{address} is not free: {reason}", hint)
        else:
            yield Finding(check, "ok", f"{address} is free")


def _operators(settings: Settings) -> Iterator[Finding]:
    """Who may change something at the operators' listener, which has no TLS of its own."""
    admin = settings.admin
    if admin.operators:
        names = ", ".join(each.name for each in admin.operators)
        hint = "" if admin.address.is_loopback else _IN_CLEAR
        yield Finding("operators", "ok", f"{names} may decide about queued writes", hint)


_IN_CLEAR: Final = (
    "Their passwords travel unencrypted to admin.address: listen on 127.0.0.1, and reach it by "
    "ssh -L or behind TLS"
)


def _is_running(address: Address) -> bool:
    """Whether a gateway answers at the operators' address."""
    try:
        _, body = get_readiness(address)
    except (OSError, ValueError):
        return False
    return "ready" in body


def _try_to_listen(address: Address) -> None:
    """Raises OSError."""
    if address.path is not None:
        if not os.access(Path(address.path).parent, os.W_OK):
            raise PermissionError("the folder cannot be written")
        return
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as probe:
        os_support.claim_address(probe)
        probe.bind((address.host, address.port))
        probe.listen(1)


async def _conversation(
    settings: Settings, sso: Side, platform: Side, reached: dict[str, bool]
) -> AsyncIterator[Finding]:
    """What both servers say: token, clock, capability statement."""
    response: TokenResponse | None = None
    for name in credentials_in_use(settings):
        if not reached[sso.name]:
            yield Finding(f"token {name}", "skipped", "needs the way to the SSO")
            continue
        finding, answer = await doctor_sso.ask_for_token(settings, name)
        yield finding
        response = response or answer
    session = aiohttp.ClientSession(  # noqa: TID251 - a command of its own, no request path
        cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
    )
    async with session:
        if not reached[platform.name]:
            yield Finding("clock", "skipped", "needs the way to the platform")
            yield Finding("platform metadata", "skipped", "needs the way to the platform")
            return
        async for finding in _ask_for_metadata(session, settings, platform, response):
            yield finding


async def _ask_for_metadata(
    session: aiohttp.ClientSession,  # noqa: TID251 - received, not made
    settings: Settings,
    platform: Side,
    response: TokenResponse | None,
) -> AsyncIterator[Finding]:
    headers = {"Accept": "application/fhir+json"}
    if response is not None:
        headers["Authorization"] = f"Bearer {response.access_token.reveal()}"
    tls = platform.trust()
    try:
        async with session.get(
            f"{platform.url}/metadata",
            headers=headers,
            ssl=True if tls is None else tls,
            proxy=settings.platform.proxy_url,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=settings.platform.response_timeout),
        ) as answer:
            body = await answer.read()
            status, date = answer.status, answer.headers.get("Date")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        detail = f"no answer: {type(error).__name__}"
        yield Finding("clock", "skipped", "needs an answer of the platform")
        yield Finding("platform metadata", "failed", detail, f"Check {platform.key}")
        return
    yield _clock(date)
    yield _metadata(status, body, has_token=response is not None)


def _clock(date: str | None) -> Finding:
    try:
        skew = time.time() - parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return Finding("clock", "skipped", "the platform does not tell its time")
    if abs(skew) > _MOST_SKEW:
        way = "ahead of" if skew > 0 else "behind"
        detail = f"this machine's clock is {in_words(abs(skew))} {way} the platform's"
        return Finding("clock", "failed", detail, f"Switch on time synchronisation: {_SET_CLOCK}")
    return Finding("clock", "ok", "this machine and the platform agree")


def _metadata(status: int, body: bytes, *, has_token: bool) -> Finding:
    check = "platform metadata"
    if status in (401, 403):
        if not has_token:
            return Finding(check, "skipped", f"the platform wants a token (status {status})")
        hint = "The platform refuses the SSO's token: are both of the same environment?"
        return Finding(check, "failed", f"status {status}", hint)
    try:
        statement = orjson.loads(body)
    except orjson.JSONDecodeError:
        statement = None
    if status != 200 or not isinstance(statement, dict):
        statement = {}
    if statement.get("resourceType") != "CapabilityStatement":
        hint = "Check platform.fhir_base_url: it must end where /metadata begins"
        return Finding(check, "failed", f"no CapabilityStatement (status {status})", hint)
    version = str(statement.get("fhirVersion"))[:16]
    if not version.startswith("5."):
        return Finding(check, "failed", f"FHIR {version}", "This is not an R5 server")
    return Finding(check, "ok", f"FHIR {version}")
