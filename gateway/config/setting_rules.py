"""The rules between keys, checked after every value has been validated alone, and the cautions.

Each rule yields its violations, and ends at the first key that it reads and that has a wrong value:
it is checked again once that is mended. Cautions are about settings that a gateway starts with
although they are unsafe or probably unintended.

`extra_params` must not name the parameters of OAuth requests that the gateway sets. Names are
compared without case, because some servers accept `Client_ID` for `client_id`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from gateway import os_support
from gateway.config.operations_settings import LoginSettings
from gateway.config.outbound_settings import CredentialSettings
from gateway.config.problems import RuleViolation, SettingPath, missing_key
from gateway.config.section import (
    PLACEHOLDER_HINT,
    PLACEHOLDER_MESSAGE,
    Section,
    find_in_right_part,
    find_placeholders,
)
from gateway.config.setting_urls import is_remote_plaintext
from gateway.config.settings import Settings
from gateway.config.sources import variable_name
from gateway.config.value_types import ListenAddress, similar_operation
from gateway.i18n import Message

_Rule = Callable[[Settings], Iterator[RuleViolation]]

# Former environments (guide 0.1.0) to those with the platform's current addresses.
_SUCCESSORS: Final = {"playground": "dhp-playground", "production": "dhp-production"}


def find_cautions(
    settings: Settings, is_in_file: Callable[[SettingPath], bool]
) -> Iterator[RuleViolation]:
    """Yield all cautions.

    `is_in_file` returns whether the settings file, not a variable, sets a key.
    """
    yield from find_start_cautions(settings)
    cautions: tuple[_Rule, ...] = (
        _callers_in_clear,
        _browsers_that_are_callers,
        _operators_in_clear,
        partial(_written_secrets, is_in_file),
        partial(_written_password, is_in_file, "store"),
        partial(_written_password, is_in_file, "outbox"),
        _similar_operations,
    )
    yield from find_in_right_part(cautions, settings)


def find_start_cautions(settings: Settings) -> Iterator[RuleViolation]:
    """Yield the cautions that are logged at every start, too."""
    yield from find_in_right_part((_former_addresses,), settings)


def _former_addresses(settings: Settings) -> Iterator[RuleViolation]:
    """Yield a caution where the environment fills in addresses that the platform no longer uses."""
    successor = _SUCCESSORS.get(settings.environment)
    if successor is not None:
        yield RuleViolation(
            ("environment",),
            Message("{name} has the former addresses, of guide 0.1.0", name=settings.environment),
            Message(
                "the platform of today is {successor}, which gives clients of its own",
                successor=successor,
            ),
        )


def _callers_in_clear(settings: Settings) -> Iterator[RuleViolation]:
    listen = settings.listen
    names = [caller.name for caller in settings.callers if caller.has_secret]
    if names and listen.tls.cert_file is None and not listen.address.is_loopback:
        yield RuleViolation(
            ("listen", "tls"),
            Message(
                "is off: keys and passwords of callers ({names}) travel unencrypted to {address}",
                names=", ".join(names),
                address=listen.address,
            ),
            Message(
                "give listen.tls.cert_file and listen.tls.key_file, or listen on 127.0.0.1 behind "
                "a proxy with TLS on this machine"
            ),
        )


def _browsers_that_are_callers(settings: Settings) -> Iterator[RuleViolation]:
    """Yield callers that are identified by address alone while the login is enabled.

    A browser with such an address is treated as that caller and gets no sign-in page.
    """
    if not settings.login.enabled:
        return
    for index, caller in enumerate(settings.callers):
        if not caller.has_secret and not caller.client_cert_names:
            yield RuleViolation(
                ("callers", index, "networks"),
                Message(
                    "a browser from there is this caller: it gets data with the gateway's token, "
                    "and no sign-in page"
                ),
                Message("give the caller a key or password, or leave out the browsers' addresses"),
            )


def _operators_in_clear(settings: Settings) -> Iterator[RuleViolation]:
    admin = settings.admin
    if admin.operators and not admin.address.is_loopback:
        yield RuleViolation(
            ("admin", "address"),
            Message(
                "is reachable from other machines, without TLS: passwords of operators ({names}) "
                "travel unencrypted",
                names=", ".join(operator.name for operator in admin.operators),
            ),
            Message("listen on 127.0.0.1, and reach it by ssh -L or behind TLS"),
        )


def _written_secrets(
    is_in_file: Callable[[SettingPath], bool], settings: Settings
) -> Iterator[RuleViolation]:
    for secret in settings.secret_refs():
        if secret.value is not None and is_in_file(secret.setting):
            yield RuleViolation(
                secret.setting,
                Message("is written into the settings file"),
                Message(
                    "keep it alone in a file that only the gateway can read, and name that in "
                    "{key}",
                    key=secret.file_key,
                ),
            )


def _written_password(
    is_in_file: Callable[[SettingPath], bool], section: str, settings: Settings
) -> Iterator[RuleViolation]:
    setting = (section, "url")
    password = getattr(getattr(settings, section).url, "password", None)
    if password is not None and is_in_file(setting):
        hint = Message("give it by the variable {variable}", variable=variable_name(setting))
        yield RuleViolation(setting, Message("holds a password in the settings file"), hint)


def _similar_operations(settings: Settings) -> Iterator[RuleViolation]:
    for index, caller in enumerate(settings.callers):
        for operation_index, name in enumerate(caller.allow.operations or ()):
            if (near := similar_operation(name)) is not None:
                yield RuleViolation(
                    ("callers", index, "allow", "operations", operation_index),
                    Message("is no operation of FHIR R5"),
                    Message(
                        "did you mean {near}? If the platform defines it, all is well", near=near
                    ),
                )


# RFC 6749 section 4.4.2, RFC 7521 section 4.2.
_RESERVED_FOR_CREDENTIALS: Final = frozenset(
    {
        "grant_type",
        "client_id",
        "client_secret",
        "client_assertion",
        "client_assertion_type",
        "scope",
    }
)
# RFC 6749 sections 4.1.1, 4.1.3 and 6, RFC 7636, OpenID Connect Core 3.1.2.1; and those that make
# an SSO send its response elsewhere (OAuth multiple response types) or ignore the other parameters
# (RFC 9101).
_RESERVED_FOR_LOGIN: Final = _RESERVED_FOR_CREDENTIALS | {
    "response_type",
    "response_mode",
    "redirect_uri",
    "state",
    "nonce",
    "code",
    "code_challenge",
    "code_challenge_method",
    "code_verifier",
    "refresh_token",
    "request",
    "request_uri",
}


def _login(settings: Settings) -> Iterator[RuleViolation]:
    login = settings.login
    if not login.enabled:
        return
    for key in ("client_id", "redirect_uri"):
        if getattr(login, key) is None:
            yield _missing_for_login(("login", key))
    yield from _redirect_uri(login.redirect_uri)
    yield from _client(("login",), login, _RESERVED_FOR_LOGIN)


def _sign_in_address(settings: Settings) -> Iterator[RuleViolation]:
    sso = settings.sso
    if settings.login.enabled and sso.authorize_url is None and sso.issuer is None:
        yield _missing_for_login(("sso", "authorize_url"))


def _login_path(settings: Settings) -> Iterator[RuleViolation]:
    if settings.login.enabled and f"{settings.listen.base_path}/".startswith("/auth/"):
        yield RuleViolation(
            ("listen", "base_path"),
            Message("collides with /auth, which belongs to the login"),
            Message("choose another path, e.g. /fhir"),
        )


def _missing_for_login(setting: SettingPath) -> RuleViolation:
    return missing_key(setting, Message("login.enabled needs it"))


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


def _client(
    path: SettingPath, client: CredentialSettings | LoginSettings, reserved: frozenset[str]
) -> Iterator[RuleViolation]:
    """Yield violations of a client's keys; `reserved` are names of parameters, in lower case."""
    by_key = client.auth_method == "private_key_jwt"
    if by_key and not client.private_key_file:
        hint = Message("auth_method private_key_jwt signs with it")
        yield missing_key((*path, "private_key_file"), hint)
    if by_key and (client.client_secret or client.client_secret_file):
        hint = Message("remove it, or choose auth_method client_secret_post")
        key = "client_secret" if client.client_secret else "client_secret_file"
        yield RuleViolation((*path, key), Message("is not used with private_key_jwt"), hint)
    if not by_key and client.private_key_file:
        hint = Message("set auth_method: private_key_jwt, or remove it")
        message = Message("is not used with {auth_method}", auth_method=client.auth_method)
        yield RuleViolation((*path, "private_key_file"), message, hint)
    for name in client.extra_params:
        if name.lower() in reserved:
            message, hint = Message("is set by the gateway itself"), Message("remove it")
            yield RuleViolation((*path, "extra_params", name), message, hint)


def find_violations(settings: Settings) -> Iterator[RuleViolation]:
    """Yield all violations."""
    return find_in_right_part(_RULES, settings)


_NOT_HERE: Final = Message("that is not to be had on this operating system")


def _unix_socket(section: str, settings: Settings) -> Iterator[RuleViolation]:
    """Yield a unix socket where the system, Windows, has none that the gateway supports."""
    if getattr(settings, section).address.path is not None and not os_support.HAS_UNIX_SOCKETS:
        yield RuleViolation(
            (section, "address"),
            Message("is a unix socket"),
            Message("{not_here}: use host:port", not_here=_NOT_HERE),
        )


def _shared_port(settings: Settings) -> Iterator[RuleViolation]:
    listen = settings.listen
    if listen.reuse_port and not os_support.HAS_PORT_SHARING:
        yield RuleViolation(
            ("listen", "reuse_port"),
            Message("is true"),
            Message("{not_here}: use false", not_here=_NOT_HERE),
        )
    if listen.reuse_port and listen.address.path is not None:
        yield RuleViolation(
            ("listen", "reuse_port"),
            Message("has no effect on a unix socket"),
            Message("use host:port for listen.address, or false here"),
        )


def _plaintext(section: str, key: str, settings: Settings) -> Iterator[RuleViolation]:
    url = getattr(getattr(settings, section), key)
    if url is not None and is_remote_plaintext(url) and not settings.platform.allow_plaintext:
        yield RuleViolation(
            (section, key),
            Message("must begin with https://"),
            Message(
                "http:// is for loopback hosts only; platform.allow_plaintext: true "
                "would send tokens and patient data unencrypted"
            ),
        )


def _anonymous(settings: Settings) -> Iterator[RuleViolation]:
    listen = settings.listen
    # With the login and no callers, a session is required, so that no request is anonymous.
    open_to_all = not settings.callers and not listen.allow_anonymous and not settings.login.enabled
    if open_to_all and not listen.address.is_loopback:
        yield RuleViolation(
            ("listen", "address"),
            Message("is reachable from other machines, and no callers are named"),
            Message(
                "listen on 127.0.0.1 or a unix socket, name the callers, or set "
                "listen.allow_anonymous: true if everybody who reaches it may use your "
                "credential"
            ),
        )


def _listeners(settings: Settings) -> Iterator[RuleViolation]:
    if _overlap(settings.listen.address, settings.admin.address):
        yield RuleViolation(
            ("admin", "address"),
            Message("is the same as listen.address"),
            Message("give it another port; operators' pages never share the callers' port"),
        )


def _overlap(one: ListenAddress, other: ListenAddress) -> bool:
    if one.path is not None or other.path is not None:
        return one.path == other.path
    same_host = one.host == other.host or one.is_wildcard or other.is_wildcard
    return one.port == other.port != 0 and same_host


_OWN_NAME: Final = Message("give each person an own name")


def _operators(settings: Settings) -> Iterator[RuleViolation]:
    first: dict[str, int] = {}
    for index, operator in enumerate(settings.admin.operators):
        path: SettingPath = ("admin", "operators", index)
        if not operator.secret_ref(index).is_given:
            yield missing_key((*path, "password"), Message("give password_file"))
        if first.setdefault(operator.name, index) != index:
            yield RuleViolation((*path, "name"), Message("is used twice"), _OWN_NAME)


def _listen_tls(settings: Settings) -> Iterator[RuleViolation]:
    tls = settings.listen.tls
    yield from _require_pair(("listen", "tls"), tls, "cert_file", "key_file")
    if tls.client_ca_file and not tls.cert_file:
        yield RuleViolation(
            ("listen", "tls", "client_ca_file"),
            Message("has no effect without TLS"),
            Message("give cert_file and key_file too"),
        )


def _platform_certificate(settings: Settings) -> Iterator[RuleViolation]:
    yield from _require_pair(
        ("platform",), settings.platform, "client_cert_file", "client_key_file"
    )


def _require_pair(
    group: SettingPath, section: Section, one: str, other: str
) -> Iterator[RuleViolation]:
    for given, needed in ((one, other), (other, one)):
        if getattr(section, given) and not getattr(section, needed):
            hint = Message("it belongs to {name}", name=given)
            yield missing_key((*group, needed), hint)


def _credentials(settings: Settings) -> Iterator[RuleViolation]:
    if not settings.credentials:
        yield RuleViolation(
            ("credentials",),
            Message("is empty"),
            Message("give at least credentials.default with client_id and client_secret_file"),
        )
    for name, credential in settings.credentials.items():
        yield from _credential(("credentials", name), credential)


def _default_credential(settings: Settings) -> Iterator[RuleViolation]:
    if settings.credentials and "default" not in settings.credentials and not settings.callers:
        yield missing_key(
            ("credentials", "default"),
            Message("it is the one that is used while no callers are named"),
        )


def _credential(path: SettingPath, credential: CredentialSettings) -> Iterator[RuleViolation]:
    has_secret = credential.client_secret or credential.client_secret_file
    if credential.auth_method != "private_key_jwt" and not has_secret:
        hint = Message("give client_secret_file: the path of a file that holds the secret")
        yield missing_key((*path, "client_secret"), hint)
    yield from _client(path, credential, _RESERVED_FOR_CREDENTIALS)


def _secrets(settings: Settings) -> Iterator[RuleViolation]:
    for secret in settings.secret_refs():
        if secret.value is not None and secret.file is not None:
            yield RuleViolation(
                secret.setting,
                Message("and {setting}_file are both given", setting=secret.setting[-1]),
                Message("keep the file, remove the other"),
            )


RESERVED_CALLERS: Final = frozenset({"anonymous", "session", "others"})
"""What stands for callers without a name of their own, in lower case."""


def _callers(settings: Settings) -> Iterator[RuleViolation]:
    seen: dict[str, int] = {}
    for index, caller in enumerate(settings.callers):
        path: SettingPath = ("callers", index)
        basic = caller.basic_auth
        if basic and not basic.password and not basic.password_file:
            key = (*path, "basic_auth", "password")
            yield missing_key(key, Message("give password_file"))
        if basic and ":" in basic.username:
            hint = Message(
                "HTTP Basic takes what is behind it for the password (RFC 7617); choose another"
            )
            key = (*path, "basic_auth", "username")
            yield RuleViolation(key, Message("holds a colon"), hint)
        user, purpose = caller.user_header, caller.purpose_header
        if user is not None and purpose is not None and user.lower() == purpose.lower():
            hint = Message("one header names the user, another one the purpose")
            yield RuleViolation((*path, "purpose_header"), Message("is user_header, too"), hint)
        first = seen.setdefault(caller.name, index)
        if first != index:
            hint = Message("callers[{first}] has the same name; give each its own", first=first)
            yield RuleViolation((*path, "name"), Message("is used twice"), hint)
        if caller.name.lower() in RESERVED_CALLERS:
            hint = Message(
                "the gateway calls those so who have no name of their own; choose another"
            )
            yield RuleViolation((*path, "name"), Message("is a name of the gateway's own"), hint)


def _callers_credentials(settings: Settings) -> Iterator[RuleViolation]:
    for index, caller in enumerate(settings.callers):
        key = ("callers", index, "credential")
        yield from _require_credential(key, caller.credential, settings)


def _require_credential(
    setting: SettingPath, name: str, settings: Settings
) -> Iterator[RuleViolation]:
    if name not in settings.credentials:
        known = ", ".join(settings.credentials) or Message("none")
        hint = Message("known here: {credentials}", credentials=known)
        yield RuleViolation(setting, Message("names no credential"), hint)


def _callers_certificates(settings: Settings) -> Iterator[RuleViolation]:
    for index, caller in enumerate(settings.callers):
        if caller.client_cert_names and not settings.listen.tls.client_ca_file:
            hint = Message("set listen.tls.client_ca_file, else no client certificate is asked for")
            key = ("callers", index, "client_cert_names")
            yield RuleViolation(key, Message("cannot be checked"), hint)


def _audit(settings: Settings) -> Iterator[RuleViolation]:
    audit = settings.audit
    if audit.sink == "file" and not os_support.HAS_FILE_LOCKS:
        yield RuleViolation(
            ("audit", "sink"),
            Message("is file"),
            Message("{not_here}: use syslog or stdout", not_here=_NOT_HERE),
        )
    if audit.sink == "file" and audit.path is None:
        yield missing_key(("audit", "path"), Message("audit.sink: file writes there"))
    if audit.sink == "syslog" and audit.syslog_url is None:
        hint = Message("audit.sink: syslog sends there")
        yield missing_key(("audit", "syslog_url"), hint)
    yield from _require_pair(("audit",), audit, "syslog_client_cert_file", "syslog_client_key_file")


def _audit_events(settings: Settings) -> Iterator[RuleViolation]:
    audit = settings.audit
    if audit.fhir_profile != "base" and not audit.fhir_audit_events:
        hint = Message("set audit.fhir_audit_events: true, or leave this out")
        yield RuleViolation(
            ("audit", "fhir_profile"), Message("needs audit.fhir_audit_events"), hint
        )
    endpoint = ("audit", "fhir_endpoint")
    if audit.fhir_endpoint is not None:
        if not audit.fhir_audit_events:
            hint = Message("set audit.fhir_audit_events: true, or leave this out")
            yield RuleViolation(endpoint, Message("needs audit.fhir_audit_events"), hint)
        if audit.sink == "off":
            hint = Message("choose an audit.sink for the records themselves")
            yield RuleViolation(endpoint, Message("is not used with audit.sink off"), hint)
    for key in ("fhir_ca_file", "fhir_credential"):
        if getattr(audit, key) is not None and audit.fhir_endpoint is None:
            yield RuleViolation(
                ("audit", key), Message("needs audit.fhir_endpoint"), Message("remove it")
            )
    if audit.fhir_credential is not None:
        key_path = ("audit", "fhir_credential")
        yield from _require_credential(key_path, audit.fhir_credential, settings)


def _tracing(settings: Settings) -> Iterator[RuleViolation]:
    tracing = settings.tracing
    url = tracing.otlp_endpoint
    if tracing.secret_ref().is_given and url is not None and is_remote_plaintext(url):
        yield RuleViolation(
            ("tracing", "otlp_endpoint"),
            Message("must begin with https://"),
            Message("tracing.authorization would travel unencrypted"),
        )


def _outbox(settings: Settings) -> Iterator[RuleViolation]:
    outbox = settings.outbox
    if outbox.enabled and not (outbox.encryption_key or outbox.encryption_key_file):
        yield missing_key(
            ("outbox", "encryption_key"),
            Message(
                "give encryption_key_file: 32 bytes as base64url, which openssl rand "
                "-base64 32 | tr '+/' '-_' makes; without it patient data would lie "
                "open on the disk"
            ),
        )
    if outbox.reveal and settings.audit.sink == "off":
        hint = Message("choose an audit.sink, or leave this out")
        yield RuleViolation(("outbox", "reveal"), Message("is not used with audit.sink off"), hint)


def _queueing_callers(settings: Settings) -> Iterator[RuleViolation]:
    for index, caller in enumerate(settings.callers):
        if caller.outbox == "always" and not settings.outbox.enabled:
            yield RuleViolation(
                ("callers", index, "outbox"),
                Message("needs outbox.enabled"),
                Message("enable it, or leave this out"),
            )


def _placeholders(settings: Settings) -> Iterator[RuleViolation]:
    for setting in find_placeholders(settings):
        yield RuleViolation(setting, PLACEHOLDER_MESSAGE, PLACEHOLDER_HINT)


_RULES: Final[tuple[_Rule, ...]] = (
    partial(_unix_socket, "listen"),
    partial(_unix_socket, "admin"),
    _shared_port,
    partial(_plaintext, "platform", "fhir_base_url"),
    partial(_plaintext, "sso", "token_url"),
    partial(_plaintext, "sso", "authorize_url"),
    partial(_plaintext, "sso", "issuer"),
    partial(_plaintext, "audit", "fhir_endpoint"),
    _anonymous,
    _listeners,
    _operators,
    _listen_tls,
    _platform_certificate,
    _credentials,
    _default_credential,
    _secrets,
    _callers,
    _callers_credentials,
    _callers_certificates,
    _audit,
    _audit_events,
    _tracing,
    _login,
    _sign_in_address,
    _login_path,
    _outbox,
    _queueing_callers,
    _placeholders,
)
