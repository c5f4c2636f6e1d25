"""The commands. Exit codes: 0 fine, 1 a check failed, 2 wrong usage or settings, 3 no start.

Modules are imported where a command needs them: `run` should serve soon, `healthcheck` is short.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from gateway import __version__

if TYPE_CHECKING:
    from gateway.config import Address, Problem, Settings
    from gateway.oauth.token_response import TokenRequestError, TokenResponse

CHECK_FAILED: Final = 1
WRONG_USAGE: Final = 2
NO_START: Final = 3
_HEALTH_TIMEOUT: Final = 3.0

cli = typer.Typer(
    name="dhp-gateway",
    help="A FHIR gateway for Uzbekistan's Digital Health Platform.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Frames and colours are for people; logs and scripts get plain lines.
    rich_markup_mode="rich" if sys.stderr.isatty() else None,
)

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        envvar="DHP_GATEWAY_CONFIG",
        help="Settings file (YAML); environment variables are laid on top.",
    ),
]


def main() -> None:
    """The console script."""
    cli(prog_name="dhp-gateway")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dhp-gateway {__version__}")
        raise typer.Exit


@cli.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """A FHIR gateway for Uzbekistan's Digital Health Platform."""


@cli.command()
def run(config: ConfigOption = None) -> None:
    """Run the gateway."""
    settings = _load(config)
    from gateway.app import run as serve
    from gateway.wiring import StartError

    try:
        code = serve(settings, config)
    except StartError as error:
        _fail(f"could not start: {error}", NO_START)
    raise typer.Exit(code)


@cli.command()
def check(config: ConfigOption = None) -> None:
    """Validate the settings and print every problem; opens no connection."""
    from gateway.config import SettingsError, load

    try:
        settings = load(config, os.environ)
        problems: Iterable[Problem] = _unreadable_files(settings)
    except SettingsError as error:
        problems = error.problems
    found = list(problems)
    for problem in found:
        typer.echo(str(problem))
    if found:
        raise typer.Exit(WRONG_USAGE)
    typer.secho(f"The settings are fine: {_gist(settings)}.", fg="green")


@cli.command()
def schema() -> None:
    """Print the JSON Schema of the settings."""
    from gateway.config.schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


def _load(config: Path | None) -> Settings:
    """The settings; prints every problem to stderr and ends with code 2 when there are any."""
    from gateway.config import SettingsError, load

    try:
        return load(config, os.environ)
    except SettingsError as error:
        for problem in error.problems:
            typer.echo(str(problem), err=True)
        raise typer.Exit(WRONG_USAGE) from None


def _fail(message: str, code: int) -> NoReturn:
    typer.secho(f"dhp-gateway: {message}", err=True, fg="red")
    raise typer.Exit(code)


def _gist(settings: Settings) -> str:
    listen = settings.listen
    return f"{listen.address}{listen.base_path} leads to {settings.platform.fhir_base_url}"


def _unreadable_files(settings: Settings) -> list[Problem]:
    """Secrets and certificates that the gateway could not read when it starts."""
    from gateway.config import Problem, SecretUnreadable

    hint = "check the path and who may read it"
    found = []
    for source in settings.secret_sources():
        try:
            source.read()
        except SecretUnreadable as error:
            found.append(Problem(error.key, f"{error.path}: {error.why}", hint))
    roots = {"platform.ca_file": settings.platform.ca_file, "sso.ca_file": settings.sso.ca_file}
    for key, path in roots.items():
        if path is not None and not os.access(path, os.R_OK):
            found.append(Problem(key, f"{path}: cannot be read", hint))
    return found


@cli.command()
def healthcheck(config: ConfigOption = None) -> None:
    """Exit with 0 when the running gateway says that it is ready."""
    address = _load(config).admin.address
    try:
        status, body = _get_readiness(address)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "no answer"
        _fail(f"not ready: {address} cannot be reached: {why.lower()}", CHECK_FAILED)
    if status == 200:
        typer.echo("ready")
        return
    failing = ", ".join(body.get("failing", ())) or f"/readyz answered {status}"
    _fail(f"not ready: {failing}", CHECK_FAILED)


def _get_readiness(address: Address) -> tuple[int, dict[str, Any]]:
    """Status and body of `/readyz`. Raises OSError or ValueError."""
    import http.client
    import socket

    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104
    connection = http.client.HTTPConnection(host or "localhost", address.port or None)
    if address.path is not None:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(_HEALTH_TIMEOUT)
        connection.sock.connect(address.path)
    else:
        connection.timeout = _HEALTH_TIMEOUT
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        body = json.loads(response.read(64 * 1024))
    except http.client.HTTPException as error:
        raise ValueError("not HTTP") from error
    finally:
        connection.close()
    return response.status, body if isinstance(body, dict) else {}


@cli.command()
def token(
    credential: Annotated[
        str, typer.Option(metavar="NAME", help="Which entry of `credentials` to use.")
    ] = "default",
    config: ConfigOption = None,
    show: Annotated[bool, typer.Option("--show", help="Print the token itself, too.")] = False,
) -> None:
    """Ask the SSO for a token and print its type, lifetime, expiry and scope."""
    settings = _load(config)
    if credential not in settings.credentials:
        known = ", ".join(settings.credentials)
        _fail(f"there is no credential {credential!r}; known: {known}", WRONG_USAGE)
    from gateway.oauth.token_response import TokenRequestError
    from gateway.wiring import StartError

    try:
        response = asyncio.run(_request_token(settings, credential))
    except StartError as error:
        _fail(str(error), NO_START)
    except TokenRequestError as error:
        _fail(f"no token: {_reason(error, settings, credential)}", CHECK_FAILED)
    _print_token(response, show=show)


async def _request_token(settings: Settings, credential: str) -> TokenResponse:
    import aiohttp

    from gateway.oauth.grants import EndpointSettings, TokenEndpoint
    from gateway.wiring import client_credentials, client_tls

    sso = settings.sso
    grant = client_credentials(settings, credential)
    endpoint = EndpointSettings(
        token_url=sso.token_url,
        timeout=sso.timeout,
        default_lifetime=sso.default_token_lifetime,
        ssl=client_tls(sso.token_url, sso.ca_file, "sso.ca_file"),
    )
    async with aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
    ) as session:
        return await TokenEndpoint(session, endpoint).request(grant)


def _print_token(response: TokenResponse, *, show: bool) -> None:
    from datetime import UTC, datetime, timedelta

    expiry = datetime.now(UTC) + timedelta(seconds=response.lifetime)
    sources = {
        "expires_in": "as the SSO says",
        "jwt": "from the token's exp",
        "default": "assumed: sso.default_token_lifetime",
    }
    typer.echo("type: Bearer")
    typer.echo(f"lifetime: {response.lifetime:.0f} s ({sources[response.lifetime_source]})")
    typer.echo(f"expiry: {expiry:%Y-%m-%dT%H:%M:%SZ}")
    typer.echo(f"scope: {response.scope or 'none named'}")
    if show:
        typer.echo(f"token: {response.access_token.reveal()}")


_REFUSALS: Final = {
    "invalid_client": "check client_id and client secret of credentials.{name}",
    "invalid_scope": "set credentials.{name}.scope to null, or to a scope you were given",
    "unauthorized_client": "the client may not use client_credentials; ask the SSO's operator",
    "unsupported_grant_type": "is sso.token_url the token endpoint?",
}
_CAUSES: Final = {
    "time-out": "{url} did not answer within {timeout:g} s",
    "name not found": "the host name in {url} cannot be resolved",
    "no connection": "no connection to {url}: nothing listens there, or a firewall is between",
    "certificate": "the certificate of {url} is not trusted; its CA goes into sso.ca_file",
    "TLS": "no secure connection to {url}: TLS failed",
    "connection broken": "the connection to {url} broke before the answer was complete",
    "not HTTP": "{url} answered something that is not HTTP",
    "redirect": "{url} answered with a redirect, which is never followed; correct sso.token_url",
}


def _reason(error: TokenRequestError, settings: Settings, name: str) -> str:
    """Why there is no token, in plain words; never text of the SSO."""
    sso = settings.sso
    if error.kind == "refused":
        hint = _REFUSALS.get(error.oauth_error or "", "check credentials.{name} and sso.token_url")
        code = f", {error.oauth_error}" if error.oauth_error else ""
        return f"the SSO refused (status {error.status}{code}): {hint.format(name=name)}"
    if error.kind == "throttled":
        wait = f"; try again in {error.retry_after:.0f} s" if error.retry_after else ""
        return f"the SSO has had too many requests{wait}"
    known = _CAUSES.get(error.cause)
    if known is not None:
        return known.format(url=sso.token_url, timeout=sso.timeout)
    status = f" (status {error.status})" if error.status else ""
    return f"{sso.token_url} gave no token{status}: {error.cause}"
