"""The commands `token` and `probe-search`, which send requests to SSO and platform.

`token` requests a token from the SSO once, for the operator who sets the gateway up. `probe-search`
finds the search parameters by which the platform does not filter, for `fhir.unfiltered`. Each
parameter is sent with a value that no resource has: a response with matches has not been filtered.
Responses are examined for that alone and never shown.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import parse_qsl

import aiohttp
import click
import orjson
from aiohttp import ClientSession  # noqa: TID251 - commands of their own, no request path

from gateway.app.identity_setup import credential_authenticators, credentials_in_use
from gateway.app.tls_contexts import platform_tls, sso_tls
from gateway.cli.terminal import (
    CHECK_FAILED,
    WRONG_USAGE,
    argument,
    config_option,
    exit_with_message,
    language_option,
    load_settings,
    option,
    print_line,
    translate,
)
from gateway.cli.usage import LocalizedCommand
from gateway.config.section import suspicious_surrounding
from gateway.errors import StartError
from gateway.fhir.capability_statement import NO_CAPABILITY, TypeCapability, capabilities
from gateway.field_values import parse_retry_after
from gateway.i18n import EMPTY_MESSAGE, Message, exception_message, format_duration, join_messages
from gateway.oauth.credential import Credential
from gateway.oauth.token_endpoint import TokenEndpoint
from gateway.oauth.token_failures import cause_and_remedy, failure_text
from gateway.oauth.token_response import TokenRequestError, TokenResponse
from gateway.os_support import on_signals

if TYPE_CHECKING:
    from ssl import SSLContext

    from gateway.config.settings import Settings

# Bytes of a CapabilityStatement that are read, and of the page of a search.
MAX_STATEMENT_BYTES: Final = 16 * 1024 * 1024
MAX_PAGE_BYTES: Final = 4 * 1024 * 1024


def open_session() -> ClientSession:
    """Return a session for a command. It stores no cookies and ignores the environment."""
    return ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)


async def bounded_get(
    session: ClientSession,
    url: str,
    max_bytes: int,
    *,
    tls: SSLContext | None,
    headers: Mapping[str, str],
    **options: Any,
) -> tuple[aiohttp.ClientResponse, bytes | None]:
    """Return the response to a GET and its body, which is None where it is larger.

    With a `max_bytes` of 0 the body is not read at all. No redirect is followed. Raises
    `aiohttp.ClientError`, TimeoutError or OSError.
    """
    async with session.get(
        url,
        ssl=True if tls is None else tls,
        allow_redirects=False,
        headers={"Accept-Encoding": "identity", **headers},
        # Firewalls refuse aiohttp's, which neither a browser nor the gateway sends there.
        skip_auto_headers=("User-Agent",),
        **options,
    ) as response:
        body = await _bounded(response.content, max_bytes) if max_bytes else None
        return response, body


async def _bounded(content: aiohttp.StreamReader, max_bytes: int) -> bytes | None:
    chunks, size = [], 0
    async for chunk in content.iter_any():
        size += len(chunk)
        if size > max_bytes:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


async def request_token(settings: Settings, credential: str) -> TokenResponse:
    """Request a token with the first secret or key, in each of its forms.

    Raises `StartError` (secret, CA file) or `TokenRequestError`.
    """
    found = credential_authenticators(settings, credential)
    tls = sso_tls(settings)
    async with open_session() as session:
        client = Credential(
            endpoint=TokenEndpoint(session=session, sso=settings.sso, tls=tls),
            settings=settings.credentials[credential],
            name=credential,
            platform=settings.platform.fhir_base_url,
            authenticators=[each for each in found if each.fingerprint == found[0].fingerprint],
        )
        return await client.request()


def _format_token(response: TokenResponse, *, show: bool) -> Iterator[Message]:
    """Yield lines for the operator, with the token itself only if `show` is true."""
    expiry = datetime.now(UTC) + timedelta(seconds=response.lifetime)
    sources = {
        "expires_in": Message("as the SSO reports"),
        "jwt": Message("from the token's exp"),
        "default": Message("assumed: sso.default_token_lifetime"),
    }
    yield Message("type: Bearer")
    yield Message(
        "lifetime: {time} ({source})",
        time=format_duration(response.lifetime),
        source=sources[response.lifetime_source],
    )
    yield Message("expiry: {time}", time=f"{expiry:%Y-%m-%dT%H:%M:%SZ}")
    yield Message("scope: {scope}", scope=response.scope or Message("none named"))
    if show:
        yield Message("token: {token}", token=response.access_token.reveal())


def _format_assertion(settings: Settings, credential: str) -> Iterator[Message]:
    """Yield lines with what the SSO gets from a credential with a key; none for other credentials.

    The assertion is made for this output and shown without its signature. Raises `StartError`.
    """
    first = credential_authenticators(settings, credential)[0]
    if first.public_key is None:
        return
    form = dict(parse_qsl(first.authenticate(settings.sso.token_url, {}, "")))
    header, claims, _ = form["client_assertion"].split(".")
    yield Message("assertion header: {header}", header=_decoded(header))
    yield Message("assertion claims: {claims}", claims=_decoded(claims))
    yield Message("public key: {key}", key=orjson.dumps(first.public_key).decode())


def _decoded(part: str) -> str:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)).decode()


def _token_failure_text(error: TokenRequestError, settings: Settings, name: str) -> Message:
    """Return why there is no token, as a text for the operator."""
    return join_messages(
        "", [failure_text(error, name, settings.sso), _secret_hint(error, settings, name)]
    )


def token_failure_and_remedy(
    error: TokenRequestError, settings: Settings, name: str
) -> tuple[Message, Message]:
    """Return the same as two texts: what happened, and what to do, empty where that is unknown."""
    happened, remedy = cause_and_remedy(error, name, settings.sso)
    return happened, join_messages("", [remedy, _secret_hint(error, settings, name)])


def _secret_hint(error: TokenRequestError, settings: Settings, name: str) -> Message:
    """Return a hint on invisible causes: white space around the secret, or several secrets."""
    credential = settings.credentials[name]
    is_refusal = error.kind == "refused" or error.may_be_wrong_client
    if not is_refusal or credential.auth_method == "private_key_jwt":
        return EMPTY_MESSAGE
    source = credential.secret_ref(name)
    with contextlib.suppress(StartError):
        secret = source.read()
        if secret is not None and (odd := suspicious_surrounding(secret)) is not None:
            return Message(" ({key} {odd}: is that intended?)", key=source.key, odd=odd)
        if secret is not None and len(secret.reveal().splitlines()) > 1:
            return Message(" ({key} has several: the first was tried)", key=source.key)
    return EMPTY_MESSAGE


@click.command(cls=LocalizedCommand)
@option(
    "--credential",
    default="default",
    show_default=True,
    metavar="NAME",
    help="Which entry of `credentials` to use.",
)
@config_option
@option("--show", is_flag=True, help="Print the token itself too.")
@language_option
def token(
    credential: str,
    config: Path | None,
    show: bool,
    lang: str | None,
) -> None:
    """Ask the SSO for a token and print its type, lifetime, expiry and scope."""
    settings = load_settings(config)
    _require(settings, credential)
    try:
        for line in _format_assertion(settings, credential):
            print_line(line)
        response = asyncio.run(request_token(settings, credential))
    except TokenRequestError as error:
        why = _token_failure_text(error, settings, credential)
        exit_with_message(Message("no token: {why}", why=why), CHECK_FAILED)
    for line in _format_token(response, show=show):
        print_line(line)


@click.command(cls=LocalizedCommand)
@argument(
    "wanted", nargs=-1, metavar="[TYPE[?param]…]", help="Default: all that the platform declares."
)
@config_option
@option("--credential", default="", metavar="NAME", help="Which entry of `credentials` to use.")
@option(
    "--rate",
    type=click.FloatRange(min=0.01, max=100),
    default=2.0,
    show_default=True,
    metavar="NUMBER",
    help="Requests a second at most.",
)
@language_option
def probe_search(
    wanted: tuple[str, ...],
    config: Path | None,
    credential: str,
    rate: float,
    lang: str | None,
) -> None:
    """Find the search parameters that filter nothing, and print them for `fhir.unfiltered`.

    Shows no patient data and stores nothing. Exit codes: 0 all were tested, 1 some or all could
    not be tested, or it was interrupted, 2 wrong usage or settings, 3 a secret cannot be read.
    """
    settings = load_settings(config)
    if credential:
        _require(settings, credential)
    name = credential or credentials_in_use(settings)[0]
    try:
        targets = _parse_targets(wanted)
    except ValueError as error:
        exit_with_message(exception_message(error), WRONG_USAGE)
    try:
        report = asyncio.run(_run(settings, targets, name, rate))
    except TokenRequestError as error:
        why = _token_failure_text(error, settings, name)
        exit_with_message(Message("no token: {why}", why=why), CHECK_FAILED)
    except _ProbeUnavailableError as error:
        exit_with_message(exception_message(error), CHECK_FAILED)
    except (KeyboardInterrupt, asyncio.CancelledError):
        exit_with_message(Message("interrupted; nothing was stored"), CHECK_FAILED)
    for line in report.lines():
        click.echo(line)
    for line in report.notes(partial=bool(targets)):
        print_line(line, err=True)
    raise click.exceptions.Exit(CHECK_FAILED if report.failed or not report.asked_count else 0)


def _require(settings: Settings, credential: str) -> None:
    if credential not in settings.credentials:
        known = ", ".join(settings.credentials)
        why = Message(
            "there is no credential {credential!r}; known: {known}",
            credential=credential,
            known=known,
        )
        exit_with_message(why, WRONG_USAGE)


_ProbeVerdict = Literal["matches", "none", "refused", "unanswered"]
_ProbeTarget = tuple[str, str | None]

# Values that no resource has, by the type of the parameter; all other types get a random text.
_IMPOSSIBLE: Final = {
    "date": "1800-01-01",
    "number": "-987654321",
    "quantity": "-987654321",
    "uri": "urn:uuid:{text}",
    "composite": "{text}${text}",
}
# Parameters of all types that select resources; the others concern the response.
_COMMON: Final = frozenset(
    ("_id", "_lastUpdated", "_tag", "_profile", "_security", "_source", "_text", "_content")
)
# A position or the like: no value is known that is certainly far from every resource.
_UNDETERMINABLE_KIND: Final = "special"

_RETRIED_STATUSES: Final = frozenset((429, 503))
_MAX_TRIES: Final = 3
_PAUSE: Final = 5.0
_MAX_PAUSE: Final = 60.0
# A token is renewed so many seconds before its expiry, a short-lived one at half its lifetime.
_RENEW_AHEAD: Final = 30.0


class _ProbeUnavailableError(Exception):
    """The platform could not be reached or sent no CapabilityStatement; the text says why."""


@dataclass(slots=True)
class _ProbeReport:
    """The results of a probe. `unfiltered`: parameters by resource type.

    `undetermined`: `TYPE?parameter` to the reason why nothing is known about it.
    """

    asked_count: int = 0
    failed: bool = False
    unfiltered: dict[str, list[str]] = field(default_factory=dict)
    undetermined: dict[str, Message] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """Yield the lines for the settings file."""
        yield "fhir:"
        yield "  unfiltered:" if self.unfiltered else "  unfiltered: {}"
        for kind, names in sorted(self.unfiltered.items()):
            yield f"    {kind}: [{', '.join(names)}]"

    def notes(self, *, partial: bool) -> Iterator[Message]:
        """Yield further messages for the operator."""
        count = sum(map(len, self.unfiltered.values()))
        yield Message(
            "{asked} search parameters tested, {count} filter nothing",
            asked=self.asked_count,
            count=count,
        )
        by_reason: dict[Message, list[str]] = {}
        for name, why in self.undetermined.items():
            by_reason.setdefault(why, []).append(name)
        for why, names in by_reason.items():
            yield Message("nothing is known about {names}: {why}", names=", ".join(names), why=why)
        if partial:
            yield Message(
                "fhir.unfiltered replaces the value of the environment: leave the others in the "
                "list"
            )


def _parse_targets(arguments: Iterable[str]) -> list[_ProbeTarget]:
    """Return pairs of a type and one parameter, or None for all.

    Raises ValueError with the reason.
    """
    found: list[_ProbeTarget] = []
    for wanted in arguments:
        kind, mark, names = wanted.partition("?")
        if not kind.isascii() or not kind.isalpha() or not kind[0].isupper():
            raise ValueError(
                Message("{kind!r} is not a resource type; write TYPE or TYPE?parameter", kind=kind)
            )
        if "=" in names or (mark and not all(names.split("&"))):
            raise ValueError(
                Message("after {kind}? write the name of a parameter, without a value", kind=kind)
            )
        found += [(kind, name) for name in names.split("&")] if mark else [(kind, None)]
    return found


async def _run(
    settings: Settings, wanted: Sequence[_ProbeTarget], credential: str, rate: float
) -> _ProbeReport:
    """Probe all wanted parameters; all declared ones where `wanted` is empty.

    `rate` is the maximum of requests per second. Raises `StartError`, `TokenRequestError`,
    `_ProbeUnavailableError`, KeyboardInterrupt, and CancelledError at SIGTERM.
    """
    if (task := asyncio.current_task()) is not None:
        # An exception raised by a signal's handler is lost where Python ignores exceptions.
        on_signals({"SIGTERM": task.cancel})
    async with open_session() as session:
        platform = _Platform(session, settings, credential, 1 / rate)
        declared = await platform.statement()
        return await _probe(platform, _questions(declared, wanted))


def _questions(
    declared: Mapping[str, TypeCapability], wanted: Sequence[_ProbeTarget]
) -> dict[str, dict[str, str]]:
    """Return the parameters to probe by resource type, each with its type."""
    questions: dict[str, dict[str, str]] = {}
    for kind, name in wanted or [(kind, None) for kind in sorted(declared)]:
        known = declared.get(kind, NO_CAPABILITY).parameters
        names = known if name is None else {name: known.get(name, "")}
        chosen = {
            parameter: names[parameter]
            for parameter in names
            if parameter[:1] != "_" or parameter in _COMMON
        }
        questions.setdefault(kind, {}).update(chosen)
    return questions


async def _probe(platform: _Platform, questions: Mapping[str, Mapping[str, str]]) -> _ProbeReport:
    report, text = _ProbeReport(), str(uuid.uuid4())
    steps = [(kind, name) for kind, names in questions.items() for name in ("", *names)]
    empty: dict[str, Message] = {}
    with click.progressbar(steps, file=sys.stderr, label=translate(Message("testing"))) as bar:
        for kind, name in bar:
            if not name:
                verdict = await platform.search(kind, {})
                if verdict != "matches":
                    empty[kind] = _undetermined_reason(verdict)
                    report.failed |= verdict == "unanswered"
            elif (why := empty.get(kind)) is not None:
                report.undetermined[f"{kind}?{name}"] = why
            else:
                await _ask(platform, report, (kind, name, questions[kind][name]), text)
    return report


async def _ask(
    platform: _Platform, report: _ProbeReport, question: tuple[str, str, str], text: str
) -> None:
    kind, name, value_kind = question
    if value_kind == _UNDETERMINABLE_KIND:
        report.undetermined[f"{kind}?{name}"] = Message(
            "its value has the type {value_kind}", value_kind=value_kind
        )
        return
    value = _IMPOSSIBLE.get(value_kind, "{text}").format(text=text)
    verdict = await platform.search(kind, {name: value})
    report.asked_count += 1
    if verdict == "matches":
        report.unfiltered.setdefault(kind, []).append(name)
    elif verdict == "unanswered":
        report.failed = True
        report.undetermined[f"{kind}?{name}"] = _undetermined_reason(verdict)


def _undetermined_reason(verdict: _ProbeVerdict) -> Message:
    reasons = {
        "none": Message("there is none of that type"),
        "refused": Message("the platform refuses the search"),
    }
    return reasons.get(verdict, Message("the platform did not answer"))


class _Platform:
    """Sends requests to the platform, each at least `pause` seconds after the one before."""

    def __init__(
        self,
        session: ClientSession,
        settings: Settings,
        credential: str,
        pause: float,
    ) -> None:
        self._session = session
        self._settings = settings
        self._credential = credential
        self._pause = pause
        self._next_at = 0.0
        self._authorization = ""
        self._renew_at = 0.0
        self._tls = platform_tls(settings)

    async def statement(self) -> Mapping[str, TypeCapability]:
        """Return the declared capabilities by type. Raises `_ProbeUnavailableError`."""
        status, body = await self._get("metadata", {}, MAX_STATEMENT_BYTES)
        try:
            return capabilities(body or b"") if status == 200 else capabilities(b"")
        except ValueError:
            problem = (
                Message("no response")
                if status is None
                else Message("no CapabilityStatement (status {status})", status=status)
            )
            raise _ProbeUnavailableError(
                Message(
                    "{told} at {fhir_base_url}",
                    told=problem,
                    fhir_base_url=self._settings.platform.fhir_base_url,
                )
            ) from None

    async def search(self, kind: str, parameters: Mapping[str, str]) -> _ProbeVerdict:
        """Return whether the search has matches."""
        status, body = await self._get(kind, {**parameters, "_count": "1"}, MAX_PAGE_BYTES)
        if status is None or status >= 500 or status in (401, 403, 408, 429):
            return "unanswered"
        if status != 200:
            return "refused"
        # A response without a match is never so large.
        return "matches" if body is None or _has_matches(kind, body) else "none"

    async def _get(
        self, path: str, parameters: Mapping[str, str], max_bytes: int
    ) -> tuple[int | None, bytes | None]:
        """Return status and body.

        The status is None without a response, the body None where it is larger than `max_bytes`
        bytes.
        """
        status, body, requested_pause = None, None, 0.0
        for _ in range(_MAX_TRIES):
            await asyncio.sleep(max(requested_pause, self._next_at - time.monotonic()))
            self._next_at = time.monotonic() + self._pause
            try:
                status, body, requested_pause = await self._get_once(path, parameters, max_bytes)
            except (aiohttp.ClientError, TimeoutError, OSError):
                return None, b""
            if status == 401:
                self._renew_at = 0.0
            elif status not in _RETRIED_STATUSES:
                break
        return status, body

    async def _get_once(
        self, path: str, parameters: Mapping[str, str], max_bytes: int
    ) -> tuple[int, bytes | None, float]:
        await self._renew()
        platform = self._settings.platform
        response, body = await bounded_get(
            self._session,
            f"{platform.fhir_base_url.rstrip('/')}/{path}",
            max_bytes,
            tls=self._tls,
            params=parameters,
            headers={"Accept": "application/fhir+json", "Authorization": self._authorization},
            proxy=platform.proxy_url,
            timeout=aiohttp.ClientTimeout(total=platform.response_timeout),
        )
        pause = parse_retry_after(response.headers.get("Retry-After"), time.time())
        pause = 0.0 if response.status not in _RETRIED_STATUSES else pause or _PAUSE
        return response.status, body, min(pause, _MAX_PAUSE)

    async def _renew(self) -> None:
        """Request a new token unless the current one is valid for long enough."""
        if time.monotonic() < self._renew_at:
            return
        started_at = time.monotonic()
        response = await request_token(self._settings, self._credential)
        self._authorization = f"Bearer {response.access_token.reveal()}"
        self._renew_at = started_at + max(response.lifetime - _RENEW_AHEAD, response.lifetime / 2)


def _has_matches(kind: str, body: bytes) -> bool:
    """Return whether a searchset has a match of the type, or a total above 0.

    Resources of other types, such as OperationOutcome, do not count.
    """
    try:
        bundle = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    if not isinstance(bundle, dict) or bundle.get("resourceType") != "Bundle":
        return False
    entries = bundle.get("entry")
    total = bundle.get("total")
    found = any(_is_match(kind, entry) for entry in entries) if isinstance(entries, list) else False
    return found or (isinstance(total, int) and total > 0)


def _is_match(kind: str, entry: Any) -> bool:
    resource = entry.get("resource") if isinstance(entry, dict) else None
    return isinstance(resource, dict) and resource.get("resourceType") == kind
