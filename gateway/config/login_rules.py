"""The rules between the keys of the login."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from gateway.config import own_parameters
from gateway.config.broken_rule import RESERVED_PARAMETER, RuleViolation
from gateway.config.operations import LoginSettings
from gateway.config.problems import SettingPath
from gateway.config.settings import Settings
from gateway.config.urls import is_remote_plaintext
from gateway.i18n import Message


def find_login_violations(settings: Settings) -> Iterator[RuleViolation]:
    """Yield the violations of these rules; none while the login is disabled."""
    login = settings.login
    if not login.enabled:
        return
    needed: dict[SettingPath, object] = {
        ("login", "client_id"): login.client_id,
        ("login", "redirect_uri"): login.redirect_uri,
        ("sso", "authorize_url"): settings.sso.authorize_url,
    }
    for path, value in needed.items():
        if value is None:
            yield RuleViolation(
                path,
                Message("is missing"),
                Message("login.enabled needs it"),
                (("login", "enabled"),),
            )
    yield from _redirect_uri(login.redirect_uri)
    yield from _login_client(login)
    if f"{settings.listen.base_path}/".startswith("/auth/"):
        yield RuleViolation(
            ("listen", "base_path"),
            Message("collides with /auth, which belongs to the login"),
            Message("choose another path, e.g. /fhir"),
            (("login", "enabled"),),
        )


def _redirect_uri(redirect_uri: str | None) -> Iterator[RuleViolation]:
    if redirect_uri is None:
        return
    setting: SettingPath = ("login", "redirect_uri")
    if is_remote_plaintext(redirect_uri):
        hint = Message(
            "browsers keep the session's cookie for https:// only; http:// is for loopback hosts"
        )
        yield RuleViolation(setting, Message("must begin with https://"), hint)
    if not urlsplit(redirect_uri).path.endswith("/auth/callback"):
        hint = Message(
            "the gateway answers nowhere else, e.g. https://gateway.clinic.uz/auth/callback"
        )
        yield RuleViolation(setting, Message("must end with /auth/callback"), hint)


def _login_client(login: LoginSettings) -> Iterator[RuleViolation]:
    """Yield violations of the client's keys; a client without secret and key is public."""
    by_key = login.auth_method == "private_key_jwt"
    method: tuple[SettingPath, ...] = (("login", "auth_method"), ("login", "private_key_file"))
    if by_key and not login.private_key_file:
        hint = Message("auth_method private_key_jwt signs with it")
        yield RuleViolation(("login", "private_key_file"), Message("is missing"), hint, method)
    if by_key and (login.client_secret or login.client_secret_file):
        key = "client_secret" if login.client_secret else "client_secret_file"
        hint = Message("remove it, or choose auth_method client_secret_post")
        yield RuleViolation(
            ("login", key), Message("is not used with private_key_jwt"), hint, method
        )
    if not by_key and login.private_key_file:
        hint = Message("set auth_method: private_key_jwt, or remove it")
        message = Message("is not used with {auth_method}", auth_method=login.auth_method)
        yield RuleViolation(("login", "private_key_file"), message, hint, method)
    for name in own_parameters.reserved_for_login(login.extra_params):
        yield RuleViolation(("login", "extra_params", name), *RESERVED_PARAMETER)
