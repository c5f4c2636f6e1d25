"""`dhp-gateway init`: creates working settings from a few answers."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from gateway.commands import checking_app
from gateway.commands.shared import CHECK_FAILED, WRONG_USAGE, exit_with_message
from gateway.commands.terminal import language_option, option, print_line, translate
from gateway.commands.usage import LocalizedCommand
from gateway.i18n import Message, exception_message

if TYPE_CHECKING:
    from gateway.commands.init_answers import InitFlags
    from gateway.commands.init_plan import InitPlan

_UNIT: Final = Path("/etc/systemd/system/dhp-gateway.service")
_ETC: Final = Path("/etc/dhp-gateway")


_environment_option = option(
    "--environment", metavar="NAME", help="dhp-playground (default), dhp-production or custom."
)
_fhir_base_url_option = option(
    "--fhir-base-url", metavar="URL", help="The platform, with --environment custom."
)
_token_url_option = option("--token-url", metavar="URL", help="Who gives tokens, the same.")
_client_id_option = option("--client-id", metavar="ID", help="As the DHP team gave it to you.")
_secret_file_option = option(
    "--secret-file", metavar="FILE", help="Holds the client secret, is copied; -: stdin."
)
_key_file_option = option("--key-file", metavar="FILE", help="A private key instead; -: stdin.")
_caller_option = option(
    "--caller",
    metavar="WHERE",
    help="The old system: `machine` (default), `container` or `network`.",
)
_network_option = option(
    "--network",
    multiple=True,
    metavar="ADDRESS",
    help="From where it calls, with `--caller network`.",
)
_container_option = option(
    "--container", metavar="NAME", help="Its container, with `--caller container`."
)
_audit_option = option("--audit", metavar="SINK", help="file, or stdout (default in containers).")
_outbox_option = option(
    "--outbox/--no-outbox", default=None, help="Keep writes while the line is down; default no."
)
_directory_option = option(
    "--directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Default: /etc/dhp-gateway if it can be written, else .",
)
_yes_option = option("--yes", is_flag=True, help="Ask nothing: flags, else defaults.")


@click.command(cls=LocalizedCommand)
@_environment_option
@_fhir_base_url_option
@_token_url_option
@_client_id_option
@_secret_file_option
@_key_file_option
@_caller_option
@_network_option
@_container_option
@_audit_option
@_outbox_option
@_directory_option
@_yes_option
@language_option
def init(  # noqa: PLR0913 - one for each question
    environment: str | None = None,
    fhir_base_url: str | None = None,
    token_url: str | None = None,
    client_id: str | None = None,
    secret_file: str | None = None,
    key_file: str | None = None,
    caller: str | None = None,
    network: tuple[str, ...] = (),
    container: str | None = None,
    audit: str | None = None,
    outbox: bool | None = None,
    directory: Path | None = None,
    yes: bool = False,
    lang: str | None = None,
) -> None:
    """Ask a few questions, write settings and secret files, and check them."""
    from gateway.commands.init_answers import InitFlags

    flags = InitFlags(
        environment=environment,
        fhir_base_url=fhir_base_url,
        token_url=token_url,
        client_id=client_id,
        secret_file=secret_file,
        key_file=key_file,
        caller=caller,
        networks=tuple(network or ()),
        container=container,
        audit=audit,
        outbox=outbox,
        directory=directory or _default_directory(),
    )
    _check_result(_write_plan(flags, lang, asks=not yes and sys.stdin.isatty()))


def _write_plan(flags: InitFlags, lang: str | None, *, asks: bool) -> InitPlan:
    """Write the files of the plan that the answers make. Return the plan."""
    from gateway.commands.init_answers import InitPrompts
    from gateway.commands.init_files import InitWriteError, require_no_settings, write_files
    from gateway.commands.questions import InvalidAnswerError

    interview = InitPrompts(flags, asks=asks)
    try:
        interview.ask_language(lang, os.environ)  # noqa: TID251 - for the language
        require_no_settings(flags.directory)
        plan = interview.build_plan()
        written = write_files(plan, translate)
    except (InvalidAnswerError, InitWriteError) as error:
        exit_with_message(exception_message(error), WRONG_USAGE)
    except click.Abort:
        exit_with_message(Message("interrupted; nothing is kept"), CHECK_FAILED)
    for path in written:
        print_line(Message("written: {path}", path=path))
    return plan


def _default_directory() -> Path:
    here = os.access(_ETC if _ETC.exists() else _ETC.parent, os.W_OK)
    return _ETC if here else Path()


def _check_result(plan: InitPlan) -> None:
    """Check the written settings, print the next steps, and exit."""
    from gateway.config import SettingsSource

    environ = {**os.environ, **plan.local_variables()}  # noqa: TID251 - for the settings
    settings = checking_app.run_check(SettingsSource(plan.directory / "gateway.yaml", environ))
    if settings is None:
        raise click.exceptions.Exit(WRONG_USAGE)
    well = checking_app.print_doctor(settings)
    _print_next_steps(plan)
    raise click.exceptions.Exit(0 if well else CHECK_FAILED)


def _print_next_steps(plan: InitPlan) -> None:
    folder = plan.directory
    if plan.kind == "container":
        command = f"docker compose --project-directory {folder} up --detach"
    elif plan.kind == "system" and _UNIT.exists():
        command = "sudo systemctl enable --now dhp-gateway"
    else:
        command = f"dhp-gateway run --config {folder / 'gateway.yaml'}"
    print_line(Message("Next:"))
    print_line(f"  {command}")
    if plan.kind == "system" and plan.uses_private_key:
        print_line(
            Message("The unit hands over a secret; for a key, first: `systemctl edit dhp-gateway`")
        )
        for line in _drop_in(plan):
            print_line(f"  {line}")
    host = "HOST" if plan.caller_location == "network" else "127.0.0.1"
    url = f"http://{host}:8080/fhir"
    print_line(Message("Then your system calls {url} in the place of the platform.", url=url))
    if plan.caller_location == "network":
        _, key, *_ = plan.secret_files()
        told = Message(
            "It sends the header X-Api-Key with what stands in {path}.", path=folder / key.path
        )
        print_line(told)


def _drop_in(plan: InitPlan) -> list[str]:
    """Return the lines of a systemd drop-in that passes the private key instead of a secret."""
    proof = next(plan.secret_files())
    variables = "DHP_GATEWAY_CREDENTIALS__DEFAULT__"
    return [
        "[Service]",
        "LoadCredential=",
        f"LoadCredential=dhp_private_key:{plan.directory / proof.path}",
        f"UnsetEnvironment={variables}CLIENT_SECRET_FILE",
        f"Environment={variables}PRIVATE_KEY_FILE=%d/dhp_private_key",
    ]
