"""The questions of `dhp-gateway init`, each with its flag and its default."""

from __future__ import annotations

import base64
import secrets
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeVar, cast

from gateway.commands.init_plan import Kind, Plan, Where
from gateway.commands.questions import Unsuitable, ask, choose
from gateway.commands.terminal import speak
from gateway.config import placeholders
from gateway.config.settings import PRESETS
from gateway.config.source import places
from gateway.config.text_file import NotText, decode
from gateway.config.urls import parse_base_url, parse_endpoint_url
from gateway.config.values import Invalid, parse_network
from gateway.oauth.client_auth import UnusableKey
from gateway.phrases import LANGUAGES, Phrase, asks_for_a_language, joined, system_error
from gateway.secret import Secret

_T = TypeVar("_T")

_ENVIRONMENTS: Final = {
    "dhp-playground": Phrase("dhp-playground, to try"),
    "dhp-production": Phrase("dhp-production, for real work"),
    "custom": Phrase("other addresses"),
}
_PLACES: Final = {
    "machine": Phrase("on this machine"),
    "container": Phrase("in a container on this machine"),
    "network": Phrase("elsewhere in the network"),
}
_PROOFS: Final = {"secret": Phrase("by a secret"), "key": Phrase("by a private key")}
_SINKS: Final = {"file": Phrase("to a file"), "stdout": Phrase("to standard output")}
_YES_NO: Final = {"no": Phrase("no"), "yes": Phrase("yes")}
_PRIVATE: Final = "10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16"


@dataclass(frozen=True, slots=True)
class Flags:
    """What was said on the command line; None or nothing: not said."""

    environment: str | None
    fhir_base_url: str | None
    token_url: str | None
    client_id: str | None
    secret_file: str | None
    key_file: str | None
    caller: str | None
    networks: tuple[str, ...]
    container: str | None
    audit: str | None
    outbox: bool | None
    directory: Path


class Interview:
    """Takes each answer from its flag, else asks for it, else takes the default.

    All methods raise `Unsuitable` for what cannot be used and is not asked for.
    """

    def __init__(self, flags: Flags, *, asks: bool) -> None:
        self._flags = flags
        self._asks = asks

    def settle_language(self, chosen: str | None, environ: Mapping[str, str]) -> None:
        """Ask for the language where neither flag nor environment tells it."""
        if self._asks and chosen is None and not asks_for_a_language(environ):
            speak(ask("Language / Язык / Til (en, ru, uz)", _language, "en"))

    def plan(self) -> Plan:
        """All answers."""
        flags = self._flags
        environment = self._choice(
            "--environment", flags.environment, Phrase("Which platform?"), _ENVIRONMENTS
        )
        urls = self._urls() if environment == "custom" else None
        client_id = self._text("--client-id", flags.client_id, Phrase("client_id"), _own_text)
        by_key, proof = self._proof()
        where = self._choice(
            "--caller", flags.caller, Phrase("Where does the old system run?"), _PLACES
        )
        kind = self._kind(where)
        container = flags.container or "his"
        if where == "container":
            question = Phrase("The name of its container")
            container = self._text("--container", flags.container, question, _own_text, "his")
        usual = "stdout" if kind == "container" else "file"
        question = Phrase("Where does the audit go?")
        audit = self._choice("--audit", flags.audit, question, _SINKS, usual)
        return Plan(
            environment=environment,
            urls=urls,
            client_id=client_id,
            proof=proof,
            by_key=by_key,
            where=cast(Where, where),
            networks=self._networks() if where == "network" else (),
            audit=cast(Literal["file", "stdout"], audit),
            kind=kind,
            directory=flags.directory.absolute(),
            container=container,
            api_key=Secret(secrets.token_hex(32)),
            outbox_key=self._outbox_key(),
        )

    def _kind(self, where: str) -> Kind:
        if where == "container":
            return "container"
        etc = places({})[0].parent
        return "system" if self._flags.directory.absolute() == etc else "folder"

    def _urls(self) -> tuple[str, str]:
        flags, preset = self._flags, PRESETS["dhp-playground"]
        platform, sso = preset["platform"]["fhir_base_url"], preset["sso"]["token_url"]
        question = Phrase("The address of the FHIR server")
        fhir_base_url = self._text(
            "--fhir-base-url", flags.fhir_base_url, question, _as_setting(parse_base_url), platform
        )
        question = Phrase("The address that gives tokens")
        token_url = self._text(
            "--token-url", flags.token_url, question, _as_setting(parse_endpoint_url), sso
        )
        return fhir_base_url, token_url

    def _proof(self) -> tuple[bool, Secret]:
        """Whether it is a key, and the key or secret."""
        flags = self._flags
        if flags.key_file is not None:
            return True, _key(_content(flags.key_file))
        if flags.secret_file is not None:
            return False, _secret(_content(flags.secret_file))
        if not self._asks:
            raise Unsuitable(_missing("--secret-file"))
        question = Phrase("How does the gateway show who it is?")
        if choose(question, _PROOFS, "secret") == "key":
            return True, ask(Phrase("The key's file"), lambda text: _key(_content(text)))
        return False, ask(Phrase("The secret (nothing is shown)"), _secret, hidden=True)

    def _networks(self) -> tuple[str, ...]:
        given = ", ".join(self._flags.networks) or None
        question = Phrase("From which addresses or networks does it call?")
        return self._text("--network", given, question, _network_list, _PRIVATE)

    def _outbox_key(self) -> Secret | None:
        given = self._flags.outbox
        answer = None if given is None else "yes" if given else "no"
        question = Phrase("Keep writes while the line is down (outbox)?")
        if self._choice("--outbox", answer, question, _YES_NO) == "no":
            return None
        return Secret(base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())

    def _choice(
        self,
        flag: str,
        given: str | None,
        question: Phrase,
        choices: Mapping[str, Phrase],
        default: str = "",
    ) -> str:
        default = default or next(iter(choices))
        if given is None:
            return choose(question, choices, default) if self._asks else default
        if given not in choices:
            names = ", ".join(choices)
            raise Unsuitable(Phrase("{flag}: one of {names}", flag=flag, names=names))
        return given

    def _text(
        self,
        flag: str,
        given: str | None,
        question: Phrase,
        read: Callable[[str], _T],
        default: str | None = None,
    ) -> _T:
        if given is None and self._asks:
            return ask(question, read, default)
        text = default if given is None else given
        if text is None:
            raise Unsuitable(_missing(flag))
        try:
            return read(text)
        except Unsuitable as error:
            raise Unsuitable(Phrase("{flag}: {why}", flag=flag, why=error.why)) from None


def _missing(flag: str) -> Phrase:
    return Phrase("{flag} is needed where nobody can be asked", flag=flag)


def _language(text: str) -> str:
    if text not in LANGUAGES:
        raise Unsuitable(Phrase(", ".join(LANGUAGES)))
    return text


def _own_text(text: str) -> str:
    if not text or not text.isprintable():
        raise Unsuitable(Phrase("is empty") if not text else Phrase("write it on one line"))
    if placeholders.is_placeholder(text):
        raise Unsuitable(placeholders.MESSAGE)
    return text


def _as_setting(parse: Callable[[str], _T]) -> Callable[[str], _T]:
    """What the settings take, told as they tell it."""

    def read(text: str) -> _T:
        try:
            return parse(text)
        except Invalid as error:
            raise Unsuitable(joined("; ", [error.message, error.hint])) from None

    return read


def _network_list(text: str) -> tuple[str, ...]:
    read = _as_setting(parse_network)
    return tuple(str(read(each.strip())) for each in text.split(","))


def _content(file: str) -> str:
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return decode(content)
    except OSError as error:
        why = system_error(error, Phrase("cannot be read"))
    except NotText as error:
        why = error.why
    raise Unsuitable(Phrase("{path}: {why}", path=file, why=why))


def _secret(text: str) -> Secret:
    return Secret(_own_text(text.strip("\r\n")))


def _key(text: str) -> Secret:
    from gateway.oauth.signing_key import read_keys

    try:
        read_keys(text)
    except UnusableKey as error:
        raise Unsuitable(error.why) from None
    return Secret(text.strip())
