"""The command line `dhp-gateway`: its commands, their options and exit codes.

Exit codes: 0 success, 1 a check failed, 2 wrong usage or settings, 3 the gateway could not start.

Modules are imported where a command needs them, so that `healthcheck` starts quickly. The docstring
of a command is its help. No command uses its parameter `lang`: the callback of `language_option`
has set the language already.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from gateway import __version__
from gateway.cli import check_command
from gateway.cli.terminal import (
    CHECK_FAILED,
    NO_START,
    WRONG_USAGE,
    argument,
    as_json_option,
    config_option,
    exit_with_message,
    exit_with_problems,
    language_option,
    load_settings,
    option,
    print_line,
    select_language,
    settings_source,
    translate,
    version_option,
)
from gateway.cli.usage import LocalizedGroup
from gateway.errors import StartError
from gateway.i18n import Message, exception_message, join_messages, setting_problem, system_error

if TYPE_CHECKING:
    from gateway.config.value_types import ListenAddress


@click.group(cls=LocalizedGroup, no_args_is_help=True)
@version_option(__version__, message="dhp-gateway %(version)s", help="Print the version.")
@language_option
def cli(lang: str | None) -> None:
    """A FHIR gateway for Uzbekistan's Digital Health Platform."""


def main() -> None:
    """Run the command line."""
    select_language(sys.argv[1:])
    cli(prog_name="dhp-gateway")


@cli.command()
@config_option
@language_option
def run(config: Path | None, lang: str | None) -> None:
    """Run the gateway."""
    # Garbage collection during the start takes a seventh of its time.
    gc.disable()
    from gateway.config.loader import SettingsError, SettingsSource

    source = SettingsSource.discover(config, os.environ)
    try:
        settings = source.load()
    except SettingsError as error:
        settings_source(config)  # only prints the source, which a gateway that starts logs
        exit_with_problems(error)
    from gateway.app.run import run as run_gateway

    try:
        code = run_gateway(settings, source)
    except StartError as error:
        _exit_start_failed(error)
    raise click.exceptions.Exit(code)


@cli.command()
@option("--platform-only", is_flag=True, help="Run no gateway in front of the platform.")
@option("--login", is_flag=True, help="Users sign in with a browser; there is a test page.")
@option(
    "--port",
    type=click.IntRange(min=0, max=65535),
    default=8090,
    show_default=True,
    metavar="PORT",
    help="The platform's port; 0: any.",
)
@option(
    "--listen",
    default="127.0.0.1:8080",
    show_default=True,
    metavar="HOST:PORT",
    envvar="DHP_SANDBOX_LISTEN",
    show_envvar=True,
    help="The gateway's address.",
)
@option(
    "--admin",
    default="127.0.0.1:9464",
    show_default=True,
    metavar="HOST:PORT",
    envvar="DHP_SANDBOX_ADMIN",
    show_envvar=True,
    help="The operators' address.",
)
@option(
    "--fail",
    multiple=True,
    metavar="SIDE=HOW",
    help="`sso|platform=STATUS|html|reset`; `STATUS`: 400 to 599.",
)
@option("--slow", multiple=True, metavar="SIDE=TIME", help="`sso|platform=2s` or `500ms`.")
@option("--token-lifetime", type=float, metavar="SECONDS", help="How long the SSO's tokens last.")
@option(
    "--reject-tokens",
    type=float,
    default=0.0,
    show_default=True,
    metavar="SHARE",
    help="Share of valid tokens that are refused, 0 to 1.",
)
@option("--lenient", is_flag=True, help="Conditions are obeyed, all filters work.")
@option(
    "--search-lag",
    type=float,
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="Seconds until a search finds a new write.",
)
@language_option
def sandbox(
    platform_only: bool,
    login: bool,
    port: int,
    listen: str,
    admin: str,
    fail: tuple[str, ...],
    slow: tuple[str, ...],
    token_lifetime: float | None,
    reject_tokens: float,
    lenient: bool,
    search_lag: float,
    lang: str | None,
) -> None:
    """Run an embedded DHP platform and a gateway in front of it; needs no network, no settings."""
    from gateway.sandbox.options import Faults, SandboxOptions

    try:
        faults = Faults.parse(fail, slow, token_lifetime, reject_tokens)
        platform = SandboxOptions(port=port, faults=faults, lenient=lenient, search_lag=search_lag)
    except ValueError as error:
        exit_with_message(exception_message(error), WRONG_USAGE)
    addresses = _address("--listen", listen), _address("--admin", admin)
    from gateway.cli.sandbox_command import SandboxRun, serve_sandbox

    try:
        serve_sandbox(SandboxRun(platform, *addresses, gateway=not platform_only, login=login))
    except StartError as error:
        _exit_start_failed(error)


def _address(option: str, text: str) -> ListenAddress:
    from gateway.config.problems import InvalidValueError
    from gateway.config.value_types import parse_address

    try:
        return parse_address(text)
    except InvalidValueError as error:
        texts = {"why": error.message, "hint": error.hint}
        exit_with_message(Message("{option} {why}; {hint}", option=option, **texts), WRONG_USAGE)


cli.add_lazy_command("init", "gateway.cli.init_command:init")
cli.command()(check_command.check)
cli.command()(check_command.doctor)


@cli.command()
def schema() -> None:
    """Print the JSON Schema of the settings."""
    from gateway.config.settings_schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


def _exit_start_failed(error: Exception) -> NoReturn:
    """Exit with code 3. The error's text has a line for each reason, which is printed."""
    reasons = (Message(line) for line in translate(exception_message(error)).splitlines())
    exit_with_message(
        join_messages("\n", (Message("could not start: {why}", why=why) for why in reasons)),
        NO_START,
    )


@cli.command()
@config_option
@language_option
def healthcheck(config: Path | None, lang: str | None) -> None:
    """Exit with 0 if the running gateway is ready.

    Of the settings only admin.address is used: wrong values of others do not matter.
    """
    from gateway.cli.healthcheck import ask
    from gateway.config.loader import SettingsError, load_admin_address

    source = settings_source(config, needed=False)
    try:
        address = load_admin_address(source.path, source.environ)
        status, body = ask(address, "/readyz")
    except SettingsError as error:
        exit_with_problems(error)
    except ValueError:
        exit_with_message(
            Message("not ready: another program answers on {address}", address=address),
            CHECK_FAILED,
        )
    except OSError as error:
        why = Message.external((error.strerror or "").lower(), Message("no response"))
        exit_with_message(
            Message(
                "not ready: {address} cannot be reached: {why}",
                address=address,
                why=why,
            ),
            CHECK_FAILED,
        )
    if body.get("ready") is True:
        print_line(Message("ready"))
        return
    names = ", ".join(body.get("failing", ()))
    failing = names or Message("/readyz answered {status}", status=status)
    exit_with_message(Message("not ready: {failing}", failing=failing), CHECK_FAILED)


audit = LocalizedGroup("audit", help="Work with audit files.", no_args_is_help=True)
cli.add_command(audit, "audit")


@audit.command()
@argument(
    "files",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE…",
    help="In any order.",
)
@option("--require-end", is_flag=True, help="Also exit 1 where the end is not confirmed.")
@as_json_option
@language_option
def verify(
    files: tuple[Path, ...],
    require_end: bool,
    as_json: bool,
    lang: str | None,
) -> None:
    """Verify the hash chain of audit files, and name the first bad line.

    Exit codes: 0 not broken, 1 a line is bad, 2 a file cannot be read.
    """
    from gateway.audit.chain_verification import verify_files
    from gateway.cli.audit_command import format_report, report_document

    try:
        verdict = verify_files(files)
    except OSError as error:
        why = system_error(error, Message("cannot be read"))
        exit_with_message(Message("{path}: {why}", path=error.filename, why=why), WRONG_USAGE)
    if as_json:
        click.echo(json.dumps(report_document(verdict), indent=2, ensure_ascii=False))
    else:
        for line in format_report(verdict):
            print_line(line)
    if verdict.fault is not None or (require_end and not verdict.is_end_proven):
        raise click.exceptions.Exit(CHECK_FAILED)


cli.add_lazy_command("outbox", "gateway.cli.outbox_commands:app")
cli.add_lazy_command("token", "gateway.cli.platform_commands:token")
cli.add_lazy_command("probe-search", "gateway.cli.platform_commands:probe_search")


@cli.command()
@option("--test", is_flag=True, help="Send a test message to every address.")
@config_option
@language_option
def notify(
    test: bool,
    config: Path | None,
    lang: str | None,
) -> None:
    """Test whether messages reach the addresses of `alerts.notify`.

    Exit codes: 0 every address accepted it, 1 some did not, 2 wrong usage or settings, 3 a
    secret cannot be read, or the library that sends messages is not installed.
    """
    if not test:
        exit_with_message(
            Message("choose what to do: notify --test sends a test message"), WRONG_USAGE
        )
    settings = load_settings(config)
    from gateway.alerts.notify_addresses import AlertAddressError
    from gateway.app.observability_setup import parse_addresses
    from gateway.cli.notify_command import send_test_message

    try:
        addresses = parse_addresses(settings)
    except AlertAddressError as error:
        exit_with_message(exception_message(error), WRONG_USAGE)
    if not addresses:
        exit_with_message(
            setting_problem("alerts.notify", Message("is empty; no recipient is set")), WRONG_USAGE
        )
    findings = asyncio.run(send_test_message(settings, addresses))
    for finding in findings:
        print_line(finding.line())
    raise click.exceptions.Exit(
        CHECK_FAILED if any(each.state == "failed" for each in findings) else 0
    )
