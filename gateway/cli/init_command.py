"""`dhp-gateway init`: creates working settings from a few answers.

Each question has a flag and a default. `gateway.cli.init_plan` determines the files that follow
from the answers, and writes them.
"""

from __future__ import annotations

import base64
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast

import click

from gateway.cli import check_command
from gateway.cli.init_plan import (
    InitPlan,
    InitWriteError,
    Kind,
    Where,
    require_absent,
    write_files,
)
from gateway.cli.terminal import (
    CHECK_FAILED,
    WRONG_USAGE,
    InvalidAnswerError,
    exit_with_message,
    language_option,
    option,
    print_line,
    prompt,
    prompt_choice,
    set_language,
)
from gateway.cli.usage import LocalizedCommand
from gateway.config.loader import search_paths
from gateway.config.problems import InvalidValueError
from gateway.config.section import (
    PLACEHOLDER_MESSAGE,
    is_placeholder,
    read_secret_file,
)
from gateway.config.setting_urls import parse_base_url, parse_endpoint_url
from gateway.config.text_files import decode
from gateway.config.value_types import parse_network
from gateway.errors import ClientKeyError, StartError
from gateway.i18n import (
    LANGUAGES,
    Message,
    exception_message,
    has_language_preference,
    join_messages,
    setting_problem,
)
from gateway.secret import Secret

_T = TypeVar("_T")

_ENVIRONMENTS: Final = {
    "dhp-playground": Message("dhp-playground, for tests"),
    "dhp-production": Message("dhp-production, for real work"),
    "custom": Message("other addresses"),
}
_CALLER_LOCATIONS: Final = {
    "machine": Message("on this machine"),
    "container": Message("in a container on this machine"),
    "network": Message("elsewhere in the network"),
}
_CLIENT_AUTH_CHOICES: Final = {
    "secret": Message("with a client secret"),
    "key": Message("with a private key"),
}
_SINKS: Final = {"file": Message("to a file"), "stdout": Message("to standard output")}
_YES_NO: Final = {"no": Message("no"), "yes": Message("yes")}
_PRIVATE: Final = "10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16"


_URL_FLAGS: Final = ("--fhir-base-url", "--token-url")


class InitPrompts:
    """Takes each answer from its flag, else asks for it, else takes the default.

    `flags` has the value of each flag, None where it was not given. All methods raise
    `InvalidAnswerError` for a flag or default that cannot be used; an invalid answer on the
    terminal is asked for again.
    """

    def __init__(self, flags: Mapping[str, str | None], directory: Path, *, asks: bool) -> None:
        self._flags = flags
        self._directory = directory.absolute()
        self._is_interactive = asks

    def ask_language(self, chosen: str | None, environ: Mapping[str, str]) -> None:
        """Ask for the language where neither flag nor environment defines it."""
        if self._is_interactive and chosen is None and not has_language_preference(environ):
            names = " / ".join(Message("Language").in_language(each) for each in LANGUAGES)
            set_language(prompt(f"{names} ({', '.join(LANGUAGES)})", _language, "en"))

    def build_plan(self) -> InitPlan:
        """Return the plan made of all answers."""
        environment = self._environment()
        self._require_flags(environment)
        urls = self._urls() if environment == "custom" else None
        client_id = self._text("--client-id", Message("client_id"), _own_text)
        by_key, secret_or_key = self._secret_or_key()
        caller_location = self._choice(
            "--caller", Message("Where does the old system run?"), _CALLER_LOCATIONS
        )
        kind = self._kind(caller_location)
        container = self._flags["--container"] or "his"
        if caller_location == "container":
            question = Message("The name of its container")
            container = self._text("--container", question, _own_text, "his")
        usual = "stdout" if kind == "container" else "file"
        question = Message("Where does the audit go?")
        audit = self._choice("--audit", question, _SINKS, usual)
        return InitPlan(
            environment=environment,
            urls=urls,
            client_id=client_id,
            client_secret_or_key=secret_or_key,
            uses_private_key=by_key,
            caller_location=cast(Where, caller_location),
            networks=self._networks() if caller_location == "network" else (),
            audit=cast(Literal["file", "stdout"], audit),
            kind=kind,
            directory=self._directory,
            container=container,
            api_key=Secret(secrets.token_hex(32)),
            outbox_key=self._outbox_key(),
        )

    def _environment(self) -> str:
        """Return the environment. URLs may be given for `custom` only."""
        flag = next((name for name in _URL_FLAGS if self._flags[name] is not None), None)
        question, default = Message("Which platform?"), "" if flag is None else "custom"
        chosen = self._choice("--environment", question, _ENVIRONMENTS, default)
        if flag is not None and chosen != "custom":
            raise InvalidAnswerError(Message("{flag}: is only for --environment custom", flag=flag))
        return chosen

    def _require_flags(self, environment: str) -> None:
        """Raise `InvalidAnswerError`, with a line for each missing flag that has no default."""
        needed = [*(_URL_FLAGS if environment == "custom" else ()), "--client-id"]
        missing = [flag for flag in needed if self._flags[flag] is None]
        if self._flags["--secret-file"] is None and self._flags["--key-file"] is None:
            missing.append("--secret-file")
        if missing and not self._is_interactive:
            told = [
                Message(
                    "{flag} is required, because no question can be asked without a terminal",
                    flag=flag,
                )
                for flag in missing
            ]
            raise InvalidAnswerError(join_messages("\n", told))

    def _kind(self, caller_location: str) -> Kind:
        if caller_location == "container":
            return "container"
        etc = search_paths({})[0].parent
        return "system" if self._directory == etc else "folder"

    def _urls(self) -> tuple[str, str]:
        question = Message("The address of the FHIR server")
        fhir_base_url = self._text("--fhir-base-url", question, _as_setting(parse_base_url))
        question = Message("The address of the token endpoint")
        return fhir_base_url, self._text("--token-url", question, _as_setting(parse_endpoint_url))

    def _secret_or_key(self) -> tuple[bool, Secret]:
        """Return whether the client uses a private key, and the key or secret."""
        key_file, secret_file = self._flags["--key-file"], self._flags["--secret-file"]
        if key_file is not None:
            return True, _from_file("--key-file", key_file, _key)
        if secret_file is not None:
            return False, _from_file("--secret-file", secret_file, _secret)
        question = Message("How does the gateway authenticate to the SSO?")
        if prompt_choice(question, _CLIENT_AUTH_CHOICES, "secret") == "key":
            read = partial(_from_file, "--key-file", read=_key)
            return True, prompt(Message("The key's file"), read)
        return False, prompt(Message("The client secret (nothing is shown)"), _secret, hidden=True)

    def _networks(self) -> tuple[str, ...]:
        question = Message("From which addresses or networks does it call?")
        return self._text("--network", question, _network_list, _PRIVATE)

    def _outbox_key(self) -> Secret | None:
        question = Message("Store writes while there is no connection (outbox)?")
        if self._choice("--outbox", question, _YES_NO) == "no":
            return None
        return Secret(base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())

    def _choice(
        self, flag: str, question: Message, choices: Mapping[str, Message], default: str = ""
    ) -> str:
        flag_value = self._flags[flag]
        default = default or next(iter(choices))
        if flag_value is None:
            return prompt_choice(question, choices, default) if self._is_interactive else default
        if flag_value not in choices:
            names = ", ".join(choices)
            raise InvalidAnswerError(Message("{flag}: one of {names}", flag=flag, names=names))
        return flag_value

    def _text(
        self, flag: str, question: Message, read: Callable[[str], _T], default: str | None = None
    ) -> _T:
        flag_value = self._flags[flag]
        if flag_value is None and self._is_interactive:
            return prompt(question, read, default)
        try:
            return read((default or "") if flag_value is None else flag_value)
        except InvalidAnswerError as error:
            raise InvalidAnswerError(setting_problem(flag, exception_message(error))) from None


def _language(text: str) -> str:
    if text not in LANGUAGES:
        raise InvalidAnswerError(Message(", ".join(LANGUAGES)))
    return text


def _own_text(text: str) -> str:
    if not text.strip() or not text.isprintable():
        blank = not text.strip()
        raise InvalidAnswerError(Message("is empty") if blank else Message("write it on one line"))
    if is_placeholder(text):
        raise InvalidAnswerError(PLACEHOLDER_MESSAGE)
    return text


def _as_setting(parse: Callable[[str], _T]) -> Callable[[str], _T]:
    """Return a parser of a setting that raises `InvalidAnswerError` with the setting's message."""

    def read(text: str) -> _T:
        try:
            return parse(text)
        except InvalidValueError as error:
            raise InvalidAnswerError(join_messages("; ", [error.message, error.hint])) from None

    return read


def _network_list(text: str) -> tuple[str, ...]:
    read = _as_setting(parse_network)
    return tuple(str(read(network.strip())) for network in text.split(","))


def _from_file(flag: str, file: str, read: Callable[[str], _T]) -> _T:
    """Return the result of `read` for a file's secret, or for standard input (`-`)."""
    try:
        text = _standard_input(flag) if file == "-" else _secret_of(flag, Path(file))
        return read(text)
    except InvalidAnswerError as error:
        raise InvalidAnswerError(setting_problem(flag, exception_message(error))) from None


def _secret_of(flag: str, path: Path) -> str:
    try:
        return read_secret_file(flag, path).reveal()
    except StartError as error:
        values = exception_message(error).values
        raise InvalidAnswerError(Message("{why}; {hint}", **values)) from None


def _standard_input(flag: str) -> str:
    try:
        text = decode(sys.stdin.buffer.read())
    except InvalidValueError as error:
        raise InvalidAnswerError(error.message) from None
    if not text.strip():
        raise InvalidAnswerError(
            Message(
                "standard input is empty; pass the client secret there: {flag} - < FILE", flag=flag
            )
        )
    return text


def _secret(text: str) -> Secret:
    return Secret(_own_text(text.strip("\r\n")))


def _key(text: str) -> Secret:
    from gateway.oauth.signing_keys import read_keys

    try:
        read_keys(text)
    except ClientKeyError as error:
        raise InvalidAnswerError(exception_message(error)) from None
    return Secret(text.strip())


_UNIT: Final = Path("/etc/systemd/system/dhp-gateway.service")
_ETC: Final = Path("/etc/dhp-gateway")


@click.command(cls=LocalizedCommand)
@option("--environment", metavar="NAME", help="dhp-playground (default), dhp-production or custom.")
@option("--fhir-base-url", metavar="URL", help="The platform, with --environment custom.")
@option("--token-url", metavar="URL", help="The token endpoint, with --environment custom.")
@option("--client-id", metavar="ID", help="As the DHP team issued it to you.")
@option(
    "--secret-file", metavar="FILE", help="File with the client secret, which is copied; -: stdin."
)
@option("--key-file", metavar="FILE", help="A private key instead; -: stdin.")
@option(
    "--caller",
    metavar="WHERE",
    help="The old system: `machine` (default), `container` or `network`.",
)
@option(
    "--network",
    "networks",
    multiple=True,
    metavar="ADDRESS",
    help="From where it calls, with `--caller network`.",
)
@option("--container", metavar="NAME", help="Its container, with `--caller container`.")
@option("--audit", metavar="SINK", help="file, or stdout (default in containers).")
@option(
    "--outbox/--no-outbox",
    default=None,
    help="Store writes while there is no connection; default no.",
)
@option(
    "--directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Default: /etc/dhp-gateway if it can be written, otherwise .",
)
@option("--yes", is_flag=True, help="Ask nothing: flags, otherwise defaults.")
@language_option
def init(
    yes: bool,
    lang: str | None,
    directory: Path | None,
    networks: tuple[str, ...],
    outbox: bool | None,
    **answers: Any,
) -> None:
    """Ask a few questions, write settings and secret files, and check them."""
    flags = {f"--{name.replace('_', '-')}": answer for name, answer in answers.items()}
    flags["--network"] = ", ".join(networks) or None
    flags["--outbox"] = None if outbox is None else "yes" if outbox else "no"
    directory = directory or _default_directory()
    asks = not yes and sys.stdin.isatty()
    _check_result(_write_plan(InitPrompts(flags, directory, asks=asks), directory, lang))


def _write_plan(interview: InitPrompts, directory: Path, lang: str | None) -> InitPlan:
    """Write the files of the plan that the answers make. Return the plan."""
    try:
        interview.ask_language(lang, os.environ)  # noqa: TID251 - for the language
        # Before the first question is asked.
        require_absent([directory / "gateway.yaml"])
        plan = interview.build_plan()
        written = write_files(plan)
    except (InvalidAnswerError, InitWriteError) as error:
        exit_with_message(exception_message(error), WRONG_USAGE)
    except click.Abort:
        exit_with_message(Message("interrupted; nothing was stored"), CHECK_FAILED)
    for path in written:
        print_line(Message("written: {path}", path=path))
    return plan


def _default_directory() -> Path:
    here = os.access(_ETC if _ETC.exists() else _ETC.parent, os.W_OK)
    return _ETC if here else Path()


def _check_result(plan: InitPlan) -> None:
    """Check the written settings, print the next steps, and exit."""
    from gateway.config.loader import SettingsSource

    environ = {**os.environ, **plan.local_variables()}  # noqa: TID251 - for the settings
    settings = check_command.run_check(SettingsSource(plan.directory / "gateway.yaml", environ))
    if settings is None:
        raise click.exceptions.Exit(WRONG_USAGE)
    well = check_command.print_doctor(settings)
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
            Message(
                "The unit hands over a client secret. If you have a key, run this first: "
                "`systemctl edit dhp-gateway`"
            )
        )
        for line in _drop_in(plan):
            print_line(f"  {line}")
    host = "HOST" if plan.caller_location == "network" else "127.0.0.1"
    url = f"http://{host}:8080/fhir"
    print_line(
        Message("Then set {url} in your system, in the place of the platform's address.", url=url)
    )
    if plan.caller_location == "network":
        _, key, *_ = plan.secret_files()
        told = Message(
            "It must send the header X-Api-Key with the content of {path}.", path=folder / key.path
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
