"""The rules between keys, checked after every value has been validated alone.

Each rule yields its violations. `related_settings` names the other keys that a rule depends on, so
that the loader can omit a violation where one of them is wrong already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from gateway import os_support
from gateway.config import login_rules, own_parameters, placeholders
from gateway.config.broken_rule import RESERVED_PARAMETER, RuleViolation
from gateway.config.outbound import CredentialSettings
from gateway.config.problems import SettingPath
from gateway.config.settings import Settings
from gateway.config.urls import is_remote_plaintext
from gateway.config.values import ListenAddress
from gateway.i18n import Message


def find_violations(settings: Settings) -> Iterator[RuleViolation]:
    """Yield all violations."""
    for rule in RULES:
        yield from rule(settings)


def _system(settings: Settings) -> Iterator[RuleViolation]:
    """Yield settings that this system does not support.

    Windows has no unix sockets and no file locks that the gateway supports.
    """
    for section in ("listen", "admin"):
        if getattr(settings, section).address.path is not None and not os_support.HAS_UNIX_SOCKETS:
            yield RuleViolation(
                (section, "address"),
                Message("is a unix socket"),
                Message("{not_here}: use host:port", not_here=_NOT_HERE),
            )
    if settings.listen.reuse_port and not os_support.HAS_PORT_SHARING:
        yield RuleViolation(
            ("listen", "reuse_port"),
            Message("is true"),
            Message("{not_here}: use false", not_here=_NOT_HERE),
        )
    if os_support.HAS_FILE_LOCKS:
        return
    if settings.audit.sink == "file":
        yield RuleViolation(
            ("audit", "sink"),
            Message("is file"),
            Message("{not_here}: use syslog or stdout", not_here=_NOT_HERE),
        )


_NOT_HERE: Final = Message("that is not to be had on this operating system")


def _plaintext(settings: Settings) -> Iterator[RuleViolation]:
    if settings.platform.allow_plaintext:
        return
    urls: dict[SettingPath, str | None] = {
        ("platform", "fhir_base_url"): settings.platform.fhir_base_url,
        ("sso", "token_url"): settings.sso.token_url,
        ("sso", "authorize_url"): settings.sso.authorize_url,
        ("audit", "fhir_endpoint"): settings.audit.fhir_endpoint,
    }
    for path, url in urls.items():
        if url is not None and is_remote_plaintext(url):
            yield RuleViolation(
                path,
                Message("must begin with https://"),
                Message(
                    "http:// is for loopback hosts only; platform.allow_plaintext: true "
                    "would send tokens and patient data unencrypted"
                ),
                (("platform", "allow_plaintext"),),
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
            (("callers",), ("listen", "allow_anonymous"), ("login",)),
        )


def _listeners(settings: Settings) -> Iterator[RuleViolation]:
    if _overlap(settings.listen.address, settings.admin.address):
        yield RuleViolation(
            ("admin", "address"),
            Message("is the same as listen.address"),
            Message("give it another port; operators' pages never share the callers' port"),
            (("listen", "address"),),
        )
    if settings.listen.reuse_port and settings.listen.address.path is not None:
        yield RuleViolation(
            ("listen", "reuse_port"),
            Message("has no effect on a unix socket"),
            Message("use host:port for listen.address, or false here"),
            (("listen", "address"),),
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
        if first.setdefault(operator.name, index) != index:
            yield RuleViolation((*path, "name"), Message("is used twice"), _OWN_NAME)
        if not operator.secret_source(index).is_given:
            yield RuleViolation(
                (*path, "password"), Message("is missing"), Message("give password_file")
            )


def _tls(settings: Settings) -> Iterator[RuleViolation]:
    tls, platform = settings.listen.tls, settings.platform
    yield from _require_pair(
        ("listen", "tls"), {"cert_file": tls.cert_file, "key_file": tls.key_file}
    )
    pair = {
        "client_cert_file": platform.client_cert_file,
        "client_key_file": platform.client_key_file,
    }
    yield from _require_pair(("platform",), pair)
    if tls.client_ca_file and not tls.cert_file:
        yield RuleViolation(
            ("listen", "tls", "client_ca_file"),
            Message("has no effect without TLS"),
            Message("give cert_file and key_file too"),
            (("listen", "tls", "cert_file"),),
        )


def _require_pair(group: SettingPath, values: Mapping[str, object]) -> Iterator[RuleViolation]:
    names = list(values)
    for name, other in (names, reversed(names)):
        if values[name] and not values[other]:
            path = (*group, other)
            yield RuleViolation(
                path,
                Message("is missing"),
                Message("it belongs to {name}", name=name),
                ((*group, name),),
            )


def _credentials(settings: Settings) -> Iterator[RuleViolation]:
    if not settings.credentials:
        yield RuleViolation(
            ("credentials",),
            Message("is empty"),
            Message("give at least credentials.default with client_id and client_secret_file"),
        )
    elif not settings.callers and "default" not in settings.credentials:
        yield RuleViolation(
            ("credentials", "default"),
            Message("is missing"),
            Message("it is the one that is used while no callers are named"),
            (("callers",), ("credentials",)),
        )
    for name, credential in settings.credentials.items():
        yield from _credential(("credentials", name), credential)


def _credential(path: SettingPath, credential: CredentialSettings) -> Iterator[RuleViolation]:
    by_key = credential.auth_method == "private_key_jwt"
    has_secret = bool(credential.client_secret or credential.client_secret_file)
    method: tuple[SettingPath, ...] = (
        (*path, "auth_method"),
        (*path, "client_secret"),
        (*path, "client_secret_file"),
        (*path, "private_key_file"),
    )
    if by_key and not credential.private_key_file:
        hint = Message("auth_method private_key_jwt signs with it")
        yield RuleViolation((*path, "private_key_file"), Message("is missing"), hint, method)
    if by_key and has_secret:
        hint = Message("remove it, or choose auth_method client_secret_post")
        key = "client_secret" if credential.client_secret else "client_secret_file"
        yield RuleViolation((*path, key), Message("is not used with private_key_jwt"), hint, method)
    if not by_key and not has_secret:
        hint = Message("give client_secret_file: the path of a file that holds the secret")
        yield RuleViolation((*path, "client_secret"), Message("is missing"), hint, method)
    if not by_key and credential.private_key_file:
        hint = Message("set auth_method: private_key_jwt, or remove it")
        message = Message("is not used with {auth_method}", auth_method=credential.auth_method)
        yield RuleViolation((*path, "private_key_file"), message, hint, method)
    for name in own_parameters.reserved_for_credentials(credential.extra_params):
        yield RuleViolation((*path, "extra_params", name), *RESERVED_PARAMETER)


def _secrets(settings: Settings) -> Iterator[RuleViolation]:
    for source in settings.secret_sources():
        if source.value is not None and source.file is not None:
            yield RuleViolation(
                source.setting,
                Message("and {setting}_file are both given", setting=source.setting[-1]),
                Message("keep the file, remove the other"),
            )


RESERVED_CALLERS: Final = frozenset({"anonymous", "session", "others"})
"""What stands for callers without a name of their own, in lower case."""


def _callers(settings: Settings) -> Iterator[RuleViolation]:
    seen: dict[str, int] = {}
    for index, caller in enumerate(settings.callers):
        path: SettingPath = ("callers", index)
        first = seen.setdefault(caller.name, index)
        if first != index:
            hint = Message("callers[{first}] has the same name; give each its own", first=first)
            yield RuleViolation(
                (*path, "name"), Message("is used twice"), hint, (("callers", first, "name"),)
            )
        user, purpose = caller.user_header, caller.purpose_header
        if user is not None and purpose is not None and user.lower() == purpose.lower():
            hint = Message("one header names the user, another one the purpose")
            key: SettingPath = (*path, "purpose_header")
            yield RuleViolation(
                key, Message("is user_header, too"), hint, ((*path, "user_header"),)
            )
        if caller.name.lower() in RESERVED_CALLERS:
            hint = Message(
                "the gateway calls those so who have no name of their own; choose another"
            )
            yield RuleViolation((*path, "name"), Message("is a name of the gateway's own"), hint)
        if caller.credential not in settings.credentials:
            hint = Message(
                "known here: {credentials}",
                credentials=", ".join(settings.credentials) or Message("none"),
            )
            related_settings: tuple[SettingPath, ...] = (("credentials",),)
            yield RuleViolation(
                (*path, "credential"), Message("names no credential"), hint, related_settings
            )
        basic = caller.basic_auth
        if basic and ":" in basic.username:
            key = (*path, "basic_auth", "username")
            hint = Message(
                "HTTP Basic takes what is behind it for the password (RFC 7617); choose another"
            )
            yield RuleViolation(key, Message("holds a colon"), hint)
        if basic and not basic.password and not basic.password_file:
            key = (*path, "basic_auth", "password")
            yield RuleViolation(key, Message("is missing"), Message("give password_file"))
        if caller.client_cert_names and not settings.listen.tls.client_ca_file:
            key = (*path, "client_cert_names")
            hint = Message("set listen.tls.client_ca_file, else no client certificate is asked for")
            yield RuleViolation(key, Message("cannot be checked"), hint, (("listen", "tls"),))


def _audit(settings: Settings) -> Iterator[RuleViolation]:
    audit = settings.audit
    sink: tuple[SettingPath, ...] = (("audit", "sink"),)
    if audit.sink == "file" and audit.path is None:
        yield RuleViolation(
            ("audit", "path"), Message("is missing"), Message("audit.sink: file writes there"), sink
        )
    if audit.sink == "syslog" and audit.syslog_url is None:
        hint = Message("audit.sink: syslog sends there")
        yield RuleViolation(("audit", "syslog_url"), Message("is missing"), hint, sink)
    pair = {
        "syslog_client_cert_file": audit.syslog_client_cert_file,
        "syslog_client_key_file": audit.syslog_client_key_file,
    }
    yield from _require_pair(("audit",), pair)
    yield from _audit_events(settings)


def _audit_events(settings: Settings) -> Iterator[RuleViolation]:
    audit = settings.audit
    wanted: tuple[SettingPath, ...] = (("audit", "fhir_audit_events"),)
    if audit.fhir_profile != "base" and not audit.fhir_audit_events:
        hint = Message("set audit.fhir_audit_events: true, or leave this out")
        yield RuleViolation(
            ("audit", "fhir_profile"), Message("needs audit.fhir_audit_events"), hint, wanted
        )
    endpoint: tuple[SettingPath, ...] = (("audit", "fhir_endpoint"),)
    if audit.fhir_endpoint is not None:
        if not audit.fhir_audit_events:
            hint = Message("set audit.fhir_audit_events: true, or leave this out")
            yield RuleViolation(endpoint[0], Message("needs audit.fhir_audit_events"), hint, wanted)
        if audit.sink == "off":
            hint = Message("choose an audit.sink for the records themselves")
            yield RuleViolation(
                endpoint[0], Message("is not used with audit.sink off"), hint, (("audit", "sink"),)
            )
    for key in ("fhir_ca_file", "fhir_credential"):
        if getattr(audit, key) is not None and audit.fhir_endpoint is None:
            yield RuleViolation(
                ("audit", key), Message("needs audit.fhir_endpoint"), Message("remove it"), endpoint
            )
    if audit.fhir_credential is not None and audit.fhir_credential not in settings.credentials:
        hint = Message(
            "known here: {credentials}",
            credentials=", ".join(settings.credentials) or Message("none"),
        )
        related_settings: tuple[SettingPath, ...] = (("credentials",),)
        yield RuleViolation(
            ("audit", "fhir_credential"), Message("names no credential"), hint, related_settings
        )


def _tracing(settings: Settings) -> Iterator[RuleViolation]:
    tracing = settings.tracing
    url = tracing.otlp_endpoint
    if tracing.secret_source().is_given and url is not None and is_remote_plaintext(url):
        yield RuleViolation(
            ("tracing", "otlp_endpoint"),
            Message("must begin with https://"),
            Message("tracing.authorization would travel unencrypted"),
            (("tracing", "authorization"), ("tracing", "authorization_file")),
        )


def _outbox(settings: Settings) -> Iterator[RuleViolation]:
    outbox = settings.outbox
    enabled: tuple[SettingPath, ...] = (("outbox", "enabled"),)
    if outbox.enabled and not (outbox.encryption_key or outbox.encryption_key_file):
        yield RuleViolation(
            ("outbox", "encryption_key"),
            Message("is missing"),
            Message(
                "give encryption_key_file: 32 bytes as base64url, which openssl rand "
                "-base64 32 | tr '+/' '-_' makes; without it patient data would lie "
                "open on the disk"
            ),
            enabled,
        )
    if outbox.reveal and settings.audit.sink == "off":
        hint = Message("choose an audit.sink, or leave this out")
        sink: SettingPath = ("audit", "sink")
        yield RuleViolation(
            ("outbox", "reveal"), Message("is not used with audit.sink off"), hint, (sink,)
        )
    for index, caller in enumerate(settings.callers):
        if caller.outbox == "always" and not outbox.enabled:
            key: SettingPath = ("callers", index, "outbox")
            yield RuleViolation(
                key,
                Message("needs outbox.enabled"),
                Message("enable it, or leave this out"),
                enabled,
            )


def _placeholders(settings: Settings) -> Iterator[RuleViolation]:
    for setting in placeholders.find_placeholders(settings):
        yield RuleViolation(setting, placeholders.MESSAGE, placeholders.HINT)


RULES: Final[tuple[Callable[[Settings], Iterator[RuleViolation]], ...]] = (
    _system,
    _plaintext,
    _anonymous,
    _listeners,
    _operators,
    _tls,
    _credentials,
    _secrets,
    _callers,
    _audit,
    _tracing,
    login_rules.find_login_violations,
    _outbox,
    _placeholders,
)
