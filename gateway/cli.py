"""The commands. Exit codes: 0 fine, 1 a check failed, 2 wrong usage or settings, 3 no start.

`audit verify` has one more, 4: nothing is wrong, but that the end is there is unproven.

Modules are imported where a command needs them: `run` should serve soon, `healthcheck` is short.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from gateway import __version__
from gateway.commands import notify_app, outbox_app, serving
from gateway.commands.exit_codes import (
    CHECK_FAILED,
    NO_START,
    UNPROVEN,
    WRONG_USAGE,
    AsJson,
    ConfigOption,
    load_settings,
    settings_source,
    tell,
)
from gateway.commands.exit_codes import fail as _fail

if TYPE_CHECKING:
    from gateway.commands.sandbox import Demo
    from gateway.config import Address, Problem, Settings

_SIDES: Final = "sso|platform"

cli = typer.Typer(
    name="dhp-gateway",
    help="A FHIR gateway for Uzbekistan's Digital Health Platform.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Frames and colours are for people; logs and scripts get plain lines.
    rich_markup_mode="rich" if sys.stderr and sys.stderr.isatty() else None,
)


def main(failure: BaseException | None = None) -> None:
    """What was asked for; `failure` is how `run` or `worker` ended that had begun without typer."""
    cli(prog_name="dhp-gateway", obj=failure)


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
def run(context: typer.Context, config: ConfigOption = None) -> None:
    """Run the gateway."""
    from gateway.config import SettingsError

    try:
        code = _outcome(context, partial(serving.run, config))
    except SettingsError as error:
        settings_source(config)
        tell(error)
    except Exception as error:
        from gateway.process.factories import StartError

        if not isinstance(error, StartError):
            raise
        _fail_to_start(error)
    raise typer.Exit(code)


@cli.command(hidden=True)
def worker(context: typer.Context, inheritance: str) -> None:
    """Run one of several workers; for the gateway's own use."""
    from gateway.process.worker import Inheritance

    try:
        Inheritance.from_text(inheritance)
    except ValueError:
        _fail("workers are started by `dhp-gateway run`", WRONG_USAGE)
    raise typer.Exit(_outcome(context, partial(serving.worker, inheritance)))


def _outcome(context: typer.Context, serve: Callable[[], int]) -> int:
    """The exit code; raises how it failed, also where that was without typer."""
    if context.obj is not None:
        raise context.obj
    return serve()


def _place(variable: str, what: str) -> Any:
    """An option for an address of the sandbox, which the image gives as a variable."""
    return typer.Option(metavar="HOST:PORT", envvar=variable, help=what)


@cli.command()
def sandbox(  # noqa: PLR0913 - one for each option
    platform_only: Annotated[
        bool, typer.Option("--platform-only", help="Run no gateway in front of the platform.")
    ] = False,
    login: Annotated[
        bool, typer.Option("--login", help="People sign in with a browser; there is a page to try.")
    ] = False,
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="The platform's port; 0: any.")
    ] = 8090,
    listen: Annotated[
        str, _place("DHP_SANDBOX_LISTEN", "The gateway's address.")
    ] = "127.0.0.1:8080",
    admin: Annotated[
        str, _place("DHP_SANDBOX_ADMIN", "The operators' address.")
    ] = "127.0.0.1:9464",
    fail: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SIDE=HOW", help=f"{_SIDES}=STATUS, html or reset. STATUS: 400 to 599."
        ),
    ] = None,
    slow: Annotated[
        list[str] | None, typer.Option(metavar="SIDE=TIME", help=f"{_SIDES}=2s or 500ms.")
    ] = None,
    token_lifetime: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="How long the SSO's tokens last.")
    ] = None,
    reject_tokens: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of good tokens refused, 0 to 1.")
    ] = 0.0,
    lenient: Annotated[
        bool, typer.Option("--lenient", help="Conditions are kept, all filters work.")
    ] = False,
    search_lag: Annotated[
        float, typer.Option(metavar="SECONDS", help="How late searches know of a write.")
    ] = 0.0,
) -> None:
    """Run an embedded DHP platform and a gateway in front of it; needs no network, no settings."""
    from gateway.sandbox import Faults, SandboxOptions

    try:
        faults = Faults.parse(fail or (), slow or (), token_lifetime, reject_tokens)
        platform = SandboxOptions(port=port, faults=faults, lenient=lenient, search_lag=search_lag)
    except ValueError as error:
        _fail(str(error), WRONG_USAGE)
    addresses = _address("--listen", listen), _address("--admin", admin)
    from gateway.commands.sandbox import Demo

    _run_sandbox(Demo(platform, *addresses, gateway=not platform_only, login=login))


def _run_sandbox(demo: Demo) -> None:
    from gateway.commands import sandbox as command
    from gateway.process.factories import StartError

    try:
        command.run(demo, typer.echo)
    except StartError as error:
        _fail_to_start(error)


def _address(option: str, text: str) -> Address:
    from gateway.config.values import Invalid, parse_address

    try:
        return parse_address(text)
    except Invalid as error:
        _fail(f"{option} {error.message}; {error.hint}", WRONG_USAGE)


@cli.command()
def check(config: ConfigOption = None, as_json: AsJson = False) -> None:
    """Validate the settings and print every problem; opens no connection."""
    from gateway.config import SettingsError

    found: list[Problem] = []
    warnings: list[Problem] = []
    settings: Settings | None
    try:
        settings = settings_source(config).load()
    except SettingsError as error:
        found += error.problems
        settings = error.rest
    if settings is not None:
        from gateway.commands import check as command

        found += command.problems(settings, {problem.key for problem in found})
        warnings += command.warnings(settings)
    if as_json:
        from gateway.commands import report

        typer.echo(report.of_settings(found, warnings))
        raise typer.Exit(WRONG_USAGE if found or settings is None else 0)
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    for problem in found:
        typer.echo(str(problem))
    if found or settings is None:
        raise typer.Exit(WRONG_USAGE)
    typer.secho(f"The settings are fine: {_gist(settings)}.", fg="green")


@cli.command()
def doctor(config: ConfigOption = None, as_json: AsJson = False) -> None:
    """Check the whole set-up, step by step, and say what to do about each fault."""
    settings = load_settings(config, as_json=as_json)
    from gateway.commands import doctor as command
    from gateway.commands import report

    findings = asyncio.run(command.run(settings, None if as_json else typer.echo))
    failed = [finding for finding in findings if finding.state == "failed"]
    if as_json:
        typer.echo(report.of_findings(findings))
    elif failed:
        typer.secho(f"{len(failed)} of {len(findings)} checks failed.", fg="red")
    else:
        typer.secho("All is well.", fg="green")
    raise typer.Exit(CHECK_FAILED if failed else 0)


@cli.command()
def schema() -> None:
    """Print the JSON Schema of the settings."""
    from gateway.config.schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


def _fail_to_start(error: Exception) -> NoReturn:
    """A line for each reason."""
    *others, last = str(error).splitlines()
    for line in others:
        typer.secho(f"dhp-gateway: could not start: {line}", err=True, fg="red")
    _fail(f"could not start: {last}", NO_START)


def _gist(settings: Settings) -> str:
    listen = settings.listen
    return f"{listen.address}{listen.base_path} leads to {settings.platform.fhir_base_url}"


@cli.command()
def healthcheck(config: ConfigOption = None) -> None:
    """Exit with 0 when the running gateway says that it is ready.

    Of the settings only admin.address is looked at: one that runs may well be healthy while the
    settings on disk are broken.
    """
    from gateway.commands.healthcheck import get_readiness
    from gateway.config import load_admin_address

    source = settings_source(config, needed=False)
    address = load_admin_address(source.path, source.environ)

    try:
        status, body = get_readiness(address)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "no answer"
        _fail(f"not ready: {address} cannot be reached: {why.lower()}", CHECK_FAILED)
    if status == 200:
        typer.echo("ready")
        return
    failing = ", ".join(body.get("failing", ())) or f"/readyz answered {status}"
    _fail(f"not ready: {failing}", CHECK_FAILED)


audit = typer.Typer(help="Look after audit files.", no_args_is_help=True)
cli.add_typer(audit, name="audit")


@audit.command()
def verify(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="In any order.")],
    as_json: AsJson = False,
) -> None:
    """Verify the hash chain of audit files, and name the first bad line.

    Exit codes: 0 whole, 1 a line is bad, 2 a file cannot be read, 4 the end is unproven.
    """
    from gateway.audit.verify import verify as judge
    from gateway.commands import audit as command

    try:
        verdict = judge(files)
    except OSError as error:
        _fail(f"{error.filename}: {(error.strerror or 'cannot be read').lower()}", WRONG_USAGE)
    if as_json:
        typer.echo(json.dumps(command.as_document(verdict), indent=2, ensure_ascii=False))
    else:
        for line in command.describe(verdict):
            typer.echo(line)
    if verdict.bad is not None:
        raise typer.Exit(CHECK_FAILED)
    raise typer.Exit(0 if verdict.end_proven else UNPROVEN)


cli.add_typer(outbox_app.app, name="outbox")


@cli.command()
def token(
    credential: Annotated[
        str, typer.Option(metavar="NAME", help="Which entry of `credentials` to use.")
    ] = "default",
    config: ConfigOption = None,
    show: Annotated[bool, typer.Option("--show", help="Print the token itself, too.")] = False,
) -> None:
    """Ask the SSO for a token and print its type, lifetime, expiry and scope."""
    settings = load_settings(config)
    if credential not in settings.credentials:
        known = ", ".join(settings.credentials)
        _fail(f"there is no credential {credential!r}; known: {known}", WRONG_USAGE)
    from gateway.commands import token as command
    from gateway.oauth.token_response import TokenRequestError
    from gateway.process.factories import StartError

    try:
        for line in command.assertion(settings, credential):
            typer.echo(line)
        response = asyncio.run(command.request(settings, credential))
    except StartError as error:
        _fail(str(error), NO_START)
    except TokenRequestError as error:
        _fail(f"no token: {command.reason(error, settings, credential)}", CHECK_FAILED)
    for line in command.describe(response, show=show):
        typer.echo(line)


cli.command()(notify_app.notify)


@cli.command(name="probe-search")
def probe_search(
    wanted: Annotated[
        list[str] | None,
        typer.Argument(metavar="TYPE[?param]…", help="Default: all that the platform declares."),
    ] = None,
    config: ConfigOption = None,
    credential: Annotated[
        str, typer.Option(metavar="NAME", help="Which entry of `credentials` to use.")
    ] = "",
    rate: Annotated[
        float, typer.Option(metavar="NUMBER", min=0.01, max=100, help="Requests a second at most.")
    ] = 2.0,
) -> None:
    """Find the search parameters that filter nothing, and print them for `fhir.unfiltered`.

    Shows no patient's data and keeps nothing. Exit codes: 0 all were asked, 1 some or all could not
    be asked, or it was interrupted, 2 wrong usage or settings, 3 a secret cannot be read.
    """
    settings = load_settings(config)
    if credential and credential not in settings.credentials:
        known = ", ".join(settings.credentials)
        _fail(f"there is no credential {credential!r}; known: {known}", WRONG_USAGE)
    from gateway.commands import probe_search as command
    from gateway.commands import token as token_command
    from gateway.oauth.token_response import TokenRequestError
    from gateway.process.factories import StartError

    try:
        targets = command.targets(wanted or ())
    except ValueError as error:
        _fail(str(error), WRONG_USAGE)
    try:
        report = command.run(settings, targets, credential=credential, rate=rate)
    except StartError as error:
        _fail(str(error), NO_START)
    except TokenRequestError as error:
        why = token_command.reason(error, settings, command.chosen(settings, credential))
        _fail(f"no token: {why}", CHECK_FAILED)
    except command.NotAskedError as error:
        _fail(str(error), CHECK_FAILED)
    except KeyboardInterrupt:
        _fail("interrupted; nothing is kept", CHECK_FAILED)
    for line in report.lines():
        typer.echo(line)
    for line in report.remarks(partial=bool(targets)):
        typer.echo(line, err=True)
    raise typer.Exit(CHECK_FAILED if report.failed else 0)
