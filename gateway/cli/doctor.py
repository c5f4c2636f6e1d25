"""`dhp-gateway doctor`: examines a set-up from the settings to the platform's CapabilityStatement.

There is one check result for each step, in the order in which an operator would search for a fault.
A step that needs a failed one is skipped, with the reason. Every failure has a hint on what to do
next.

The check of the platform's links shows whether they begin with the configured base URLs. It
examines `implementation.url` of the CapabilityStatement and the links of one search, for a type
without patients where the platform declares one. Its results show nothing but base URLs of the
platform; where the platform sends none, there is no result.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import orjson

from gateway import os_support
from gateway.app import preflight, shared_stores
from gateway.app.identity_setup import credentials_in_use
from gateway.app.preflight import Check, Finding, State
from gateway.app.tls_contexts import platform_tls, sso_tls
from gateway.cli import doctor_network, doctor_sso, notify_command
from gateway.cli.doctor_network import CheckedServer, check_route, failure
from gateway.cli.platform_commands import (
    MAX_PAGE_BYTES,
    MAX_STATEMENT_BYTES,
    bounded_get,
    open_session,
)
from gateway.config.problems import Problem
from gateway.config.settings import Settings
from gateway.errors import StartError
from gateway.fhir.capability_statement import json_objects
from gateway.fhir.content_negotiation import is_error_page, media_type
from gateway.fhir.links.link_map import LinkMap, parse_base
from gateway.field_values import parse_http_date
from gateway.guidance import COMPONENT_GUIDANCE, PLATFORM_CAUSES
from gateway.health.evidence import (
    ANSWERS,
    FAILS,
    NOT_FHIR,
    TIMEOUT,
    TLS,
    UNREACHABLE,
    signal_of_metadata,
)
from gateway.i18n import Message, format_duration, join_messages
from gateway.oauth.token_endpoint import proxy_cause
from gateway.oauth.token_failures import explain_store_error
from gateway.oauth.token_response import TokenResponse

if TYPE_CHECKING:
    from aiohttp import ClientSession  # noqa: TID251 - received, not made

SendGet = Callable[[str, int], Awaitable[tuple[aiohttp.ClientResponse, bytes | None]]]

_LINKS: Final = Check(Message("platform links"), "platform-links", "rewrite.aliases")
_STORE: Final = Check(Message("store"), "store", "store.url")
_CLOCK: Final = Check(Message("clock"), "clock")
_METADATA: Final = Check(
    Message("platform metadata"), "platform-metadata", "platform.fhir_base_url"
)
# Types without patient data, which most platforms let every client search.
_PREFERRED: Final = ("Organization", "Location", "HealthcareService", "ValueSet")
_PAGING: Final = ("self", "next", "previous", "prev", "first", "last")
# The rewriting rules need a base URL of the gateway: one that no link can have.
_GATEWAY: Final = "http://gateway.invalid"


async def _check_links(
    settings: Settings, statement: bytes, get: SendGet
) -> AsyncIterator[Finding]:
    """Yield the finding about the platform's links, if there is one.

    `get` sends a request to the platform, with a token if there is one, and returns the response
    with a body of a limited number of bytes.
    """
    if not settings.rewrite.enabled:
        return
    declared = _object(statement)
    base = settings.platform.fhir_base_url
    base_urls = _BaseUrls(LinkMap(base, _GATEWAY, settings.rewrite.aliases))
    if kind := _searched_type(declared):
        base_urls.record_links(await _search(get, f"{base.rstrip('/')}/{kind}?_count=1"), kind)
    # In YAML, the brackets of an IPv6 address need the quotation marks.
    aliases = ", ".join(dict.fromkeys(f'"{alias}"' for alias in base_urls.missing))
    if aliases:
        detail = Message("they begin with {aliases}, and lead past the gateway", aliases=aliases)
        hint = Message(
            "Set rewrite.aliases: [{aliases}], or platform.fhir_base_url to that name",
            aliases=aliases,
        )
        yield Finding(_LINKS, "failed", detail, hint)
        return
    base_urls.record_url(_object(declared.get("implementation")).get("url"))
    if base_urls.missing:
        alias = f'"{base_urls.missing[0]}"'
        detail = Message("implementation.url of the platform is {alias}", alias=alias)
        hint = Message(
            "If links begin in this way too, set rewrite.aliases: [{alias}]", alias=alias
        )
        yield Finding(_LINKS, "ok", detail, hint)
    elif base_urls.has_known:
        yield Finding(_LINKS, "ok", Message("they begin as the settings say"))


class _BaseUrls:
    """Collects the base URLs that the platform uses for itself; `missing` are the unknown ones."""

    def __init__(self, links: LinkMap) -> None:
        self._links = links
        self.missing: list[str] = []
        self.has_known = False

    def record_links(self, page: dict[str, Any], kind: str) -> None:
        """Record the links of a searchset for the type `kind`."""
        for link in json_objects(page.get("link")):
            if link.get("relation") in _PAGING:
                self.record_url(link.get("url"), kind)
        for entry in json_objects(page.get("entry")):
            url = entry.get("fullUrl")
            # A fullUrl that is the canonical URL of its resource is an identity, not a link.
            if url != _object(entry.get("resource")).get("url"):
                self.record_url(url, kind)

    def record_url(self, url: object, kind: str = "") -> None:
        """Record a URL, which is a base URL itself or, with `kind`, a URL of that type."""
        if not isinstance(url, str):
            return
        if self._links.to_gateway(url) is not None:
            self.has_known = True
            return
        base, has_query, _ = url.partition("?")
        if kind:
            before, is_of_kind, _ = base.rpartition(f"/{kind}")
            if not is_of_kind and not has_query:
                return  # It is unknown where the base URL ends and the logical id begins.
            base = before or base
        try:
            self.missing.append(parse_base(base).text)
        except ValueError:
            return


def _searched_type(statement: dict[str, Any]) -> str | None:
    types = [
        resource.get("type")
        for rest in json_objects(statement.get("rest"))
        for resource in json_objects(rest.get("resource"))
        if any(
            interaction.get("code") == "search-type"
            for interaction in json_objects(resource.get("interaction"))
        )
    ]
    searchable = [kind for kind in types if isinstance(kind, str) and kind.isalpha()]
    return next((kind for kind in (*_PREFERRED, *searchable) if kind in searchable), None)


async def _search(get: SendGet, url: str) -> dict[str, Any]:
    """Return the resource of the response, empty where there is none."""
    try:
        response, body = await get(url, MAX_PAGE_BYTES)
    except (aiohttp.ClientError, TimeoutError, OSError):
        return {}
    return _object(body) if response.status == 200 else {}


def _object(value: object) -> dict[str, Any]:
    """Return a JSON object, parsed or as bytes; an empty one for anything else."""
    if isinstance(value, bytes):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return {}
    return value if isinstance(value, dict) else {}


# Seconds. A token is checked by its times: most servers tolerate a minute.
_MAX_SKEW: Final = 60.0
_SET_CLOCK: Final = (
    "timedatectl set-ntp true"
    if os_support.HAS_FILE_MODES
    else Message("{command}, as administrator", command="w32tm /resync")
)


async def run_checks(
    settings: Settings,
    print_line: Callable[[Message], object] | None,
    warnings: Iterable[Problem] = (),
) -> list[Finding]:
    """Run all checks; `print_line` is called with each result's line at once.

    What needs a server that cannot be reached is printed after the other checks, in one line for
    each server, and whom to call at the end. `warnings` of the settings are reported with the
    check of their subject.
    """
    findings: list[Finding] = []
    unreached: dict[str, list[Finding]] = {}
    async for finding in iterate_checks(settings, warnings):
        findings.append(finding)
        if finding.state == "unreached":
            unreached.setdefault(finding.detail, []).append(finding)
        elif print_line is not None:
            print_line(finding.line())
    contact = list(_contact(settings))
    if print_line is not None:
        for finding in (*map(_merge, unreached.values()), *contact):
            print_line(finding.line())
    return findings + contact


def _merge(findings: list[Finding]) -> Finding:
    """Return one finding, for people, in the place of several that differ only in their checks."""
    names = join_messages(", ", (finding.check.name for finding in findings))
    return replace(findings[0], check=replace(findings[0].check, name=names))


async def iterate_checks(
    settings: Settings, warnings: Iterable[Problem] = ()
) -> AsyncIterator[Finding]:
    """Yield all check results as they are made. Opens connections; changes nothing anywhere."""
    for finding in (
        *_settings(settings, warnings),
        *doctor_network.check_listeners(settings),
        *_operators(settings),
    ):
        yield finding
    sso, platform = _servers(settings)
    reached: dict[str, bool] = {}
    for server, proxy in (
        (sso, settings.sso.proxy_url),
        (platform, settings.platform.proxy_url),
    ):
        findings = await check_route(server, uses_proxy=proxy is not None)
        if server is sso:
            findings = [doctor_sso.add_known_addresses(settings, finding) for finding in findings]
        reached[server.about.code] = all(finding.state != "failed" for finding in findings)
        for finding in findings:
            yield finding
    has_token = False
    async for finding in _check_conversation(settings, platform, reached):
        has_token |= finding.check.code == "token" and finding.state == "ok"
        yield finding
    async for finding in doctor_sso.check_login(settings, sso_reached=reached["sso"]):
        yield finding
    async for finding in _check_store(settings):
        yield finding
    async for finding in notify_command.check_addresses(settings):
        yield finding
    servers = [server for server in (sso, platform) if reached[server.about.code]]
    async for finding in doctor_sso.check_documents(settings, servers, has_token=has_token):
        yield finding


async def _check_store(settings: Settings) -> AsyncIterator[Finding]:
    """Yield the check of a shared store; a missing library or unusable CA is reported elsewhere."""
    if settings.store.url.kind == "memory":
        return
    try:
        await shared_stores.ask_time(settings.store)
    except (ImportError, StartError):
        return
    except Exception as error:  # depends on the library that the store uses
        guidance, told = explain_store_error(error), Message(type(error).__name__)
        detail = Message("{cause} ({told})", cause=guidance.meaning, told=told)
        yield Finding(_STORE, "failed", detail, guidance.remedy)
    else:
        yield Finding(_STORE, "ok", Message("it answers"))


def _servers(settings: Settings) -> tuple[CheckedServer, CheckedServer]:
    sso, platform = settings.sso, settings.platform
    return (
        CheckedServer(
            Check(Message("SSO"), "sso", "sso.token_url"),
            sso.token_url,
            "sso.token_url",
            partial(sso_tls, settings),
            sso.timeout,
        ),
        CheckedServer(
            Check(Message("platform"), "platform", "platform.fhir_base_url"),
            platform.fhir_base_url,
            "platform.fhir_base_url",
            partial(platform_tls, settings),
            platform.connect_timeout,
        ),
    )


def _settings(settings: Settings, warnings: Iterable[Problem]) -> Iterator[Finding]:
    environment = Message("environment {environment}", environment=settings.environment)
    yield Finding(Check(Message("settings"), "settings"), "ok", environment)
    unreported = {warning.key: warning for warning in warnings}
    for finding in preflight.preflight(settings):
        if finding.level == "ok" and (warning := unreported.pop(finding.key, None)) is not None:
            yield replace(finding, hint=warning.hint)
        else:
            yield finding
    for key, warning in unreported.items():
        check = Check(Message("setting {key}", key=key), "setting", key)
        yield Finding(check, "ok", warning.message, warning.hint)


def _operators(settings: Settings) -> Iterator[Finding]:
    """Yield which operators may change something at the admin listener."""
    admin = settings.admin
    if admin.operators:
        names = ", ".join(operator.name for operator in admin.operators)
        yield Finding(
            Check(Message("operators"), "operators"),
            "ok",
            Message("{names} may decide about queued writes", names=names),
        )


def _contact(settings: Settings) -> Iterator[Finding]:
    """Yield whom to call, and where the runbook is."""
    contact, runbook = settings.admin.contact, settings.admin.runbook_url
    if contact:
        check = Check(Message("whom to call"), "contact", "admin.contact")
        yield Finding(check, "ok", Message("{contact}", contact=contact))
    if runbook:
        check = Check(Message("runbook"), "runbook", "admin.runbook_url")
        yield Finding(check, "ok", Message("{url}", url=runbook))


async def _check_conversation(
    settings: Settings, platform: CheckedServer, reached: dict[str, bool]
) -> AsyncIterator[Finding]:
    """Yield the checks that need responses of the servers: tokens, clock, CapabilityStatement."""
    response: TokenResponse | None = None
    for name in credentials_in_use(settings):
        if not reached["sso"]:
            check = doctor_sso.token_check(name)
            yield Finding(check, "unreached", Message("not tested: no connection to the SSO"))
            continue
        finding, token_response = await doctor_sso.check_token(settings, name)
        yield finding
        response = response or token_response
    async with open_session() as session:
        if not reached["platform"]:
            yield Finding(_CLOCK, "unreached", Message("not tested: no connection to the platform"))
            yield Finding(
                _METADATA, "unreached", Message("not tested: no connection to the platform")
            )
            return
        async for finding in _ask_for_metadata(session, settings, platform, response):
            yield finding


async def _ask_for_metadata(
    session: ClientSession,
    settings: Settings,
    platform: CheckedServer,
    response: TokenResponse | None,
) -> AsyncIterator[Finding]:
    headers = {"Accept": "application/fhir+json"}
    if response is not None:
        headers["Authorization"] = f"Bearer {response.access_token.reveal()}"
    get = partial(
        bounded_get,
        session,
        tls=platform.trust(),
        headers=headers,
        proxy=settings.platform.proxy_url,
        timeout=aiohttp.ClientTimeout(total=settings.platform.response_timeout),
    )
    try:
        http_response, body = await get(f"{platform.url}/metadata", MAX_STATEMENT_BYTES)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        yield Finding(_CLOCK, "skipped", Message("not tested: no response from the platform"))
        yield _failed_request(platform, error)
        return
    status = http_response.status
    yield _check_clock(http_response.headers.get("Date"))
    if status in (401, 403) and response is None:
        detail = Message("the platform requires a token (status {status})", status=status)
        yield Finding(_METADATA, "skipped", detail)
        return
    media = media_type(http_response.headers.get("Content-Type"))
    yield _check_metadata(settings, status, body or b"", media)
    if status == 200:
        async for finding in _check_links(settings, body or b"", get):
            yield finding


def _check_clock(date: str | None) -> Finding:
    moment = parse_http_date(date or "")
    if moment is None:
        return Finding(_CLOCK, "skipped", Message("the platform does not report its time"))
    skew = time.time() - moment.timestamp()
    if abs(skew) > _MAX_SKEW:
        span = format_duration(abs(skew))
        ahead = Message("this machine's clock is {time} ahead of the platform's", time=span)
        behind = Message("this machine's clock is {time} behind the platform's", time=span)
        return Finding(
            _CLOCK,
            "failed",
            ahead if skew > 0 else behind,
            Message("Switch on time synchronisation: {set_clock}", set_clock=_SET_CLOCK),
        )
    return Finding(_CLOCK, "ok", Message("the clocks of this machine and the platform agree"))


def _failed_request(platform: CheckedServer, error: Exception) -> Finding:
    """Return the check of a platform whose metadata could not be requested."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        status = Message("status {status}", status=error.status)
        return failure(_METADATA, platform, proxy_cause(error), told=status)
    return platform_fault(_signal_of_error(error), Message(type(error).__name__))


def _signal_of_error(error: Exception) -> str:
    """Return the signal of a request for the metadata without a response."""
    if isinstance(error, TimeoutError):
        return TIMEOUT
    if isinstance(error, aiohttp.ClientSSLError):
        return TLS
    return UNREACHABLE if isinstance(error, OSError) else FAILS


def platform_fault(signal: str, told: Message) -> Finding:
    """Return the check of a platform that fails, with the words of the status page."""
    detail = Message("{cause} ({told})", cause=PLATFORM_CAUSES[signal], told=told)
    return Finding(_METADATA, "failed", detail, COMPONENT_GUIDANCE[signal].remedy)


def _check_metadata(settings: Settings, status: int, body: bytes, media: str) -> Finding:
    signal = signal_of_metadata(status, is_fhir=not is_error_page(media, body, None))
    statement = _object(body)
    if signal == ANSWERS and statement.get("resourceType") != "CapabilityStatement":
        signal = NOT_FHIR
    if signal != ANSWERS:
        return platform_fault(signal, Message("status {status}", status=status))
    version = str(statement.get("fhirVersion"))[:16]
    if not version.startswith("5."):
        # A server with custom addresses may have any version; those of DHP are R5.
        state: State = "ok" if settings.environment == "custom" else "failed"
        hint = Message("This is not an R5 server")
        return Finding(_METADATA, state, Message("FHIR {version}", version=version), hint)
    return Finding(_METADATA, "ok", Message("FHIR {version}", version=version))
