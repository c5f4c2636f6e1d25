"""The rules between keys, checked after every value has been validated alone, and the cautions.

Each rule yields its violations, and ends at the first key that it reads and that has a wrong value:
it is checked again once that is mended. Cautions are about settings that a gateway starts with
although they are unsafe or probably unintended.

`extra_params` must not name the parameters of OAuth requests that the gateway sets. Names are
compared without case, because some servers accept `Client_ID` for `client_id`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Final
from urllib.parse import urlsplit

from gateway import os_support
from gateway.config.inbound_settings import CallerSettings
from gateway.config.operations_settings import LoginSettings
from gateway.config.outbound_settings import CredentialSettings
from gateway.config.problems import RuleViolation, SettingPath, missing_key
from gateway.config.section import (
    PLACEHOLDER_HINT,
    PLACEHOLDER_MESSAGE,
    find_in_right_part,
    find_placeholders,
)
from gateway.config.setting_urls import is_remote_plaintext
from gateway.config.settings import Settings
from gateway.config.sources import variable_name
from gateway.config.value_types import ListenAddress, Network, similar_operation
from gateway.i18n import Message

_Rule = Callable[[Settings], Iterator[RuleViolation]]
# A violation whose texts are always the same, behind the test that finds it.
_Row = tuple[Callable[[Settings], object], RuleViolation]


def _rule_of(*rows: _Row) -> _Rule:
    """Return the rule that tests these rows, up to one that reads a key with a wrong value."""

    def rule(settings: Settings) -> Iterator[RuleViolation]:
        for is_violated, violation in rows:
            if is_violated(settings):
                yield violation

    return rule


_CallerRow = tuple[Callable[[CallerSettings, Settings], object], RuleViolation]


def _each_caller(*rows: _CallerRow) -> _Rule:
    """Return the rule that tests these rows for each caller; their keys are those below it."""

    def rule(settings: Settings) -> Iterator[RuleViolation]:
        for index, caller in enumerate(settings.callers):
            for is_violated, violation in rows:
                if is_violated(caller, settings):
                    yield replace(violation, setting=("callers", index, *violation.setting))

    return rule


# Former environments (guide 0.1.0) to those with the platform's current addresses.
_SUCCESSORS: Final = {"playground": "dhp-playground", "production": "dhp-production"}


def find_cautions(
    settings: Settings, is_in_file: Callable[[SettingPath], bool]
) -> Iterator[RuleViolation]:
    """Yield all cautions.

    `is_in_file` returns whether the settings file, not a variable, sets a key.
    """
    cautions: tuple[_Rule, ...] = (
        find_start_cautions,
        _callers_in_clear,
        _browsers_that_are_callers,
        _callers_never_found,
        _operators_in_clear,
        partial(_written_secrets, is_in_file),
        partial(_written_password, is_in_file, "store"),
        partial(_written_password, is_in_file, "outbox"),
        _similar_operations,
        _unused_audit_targets,
    )
    yield from find_in_right_part(cautions, settings)


def find_start_cautions(settings: Settings) -> Iterator[RuleViolation]:
    """Yield a caution where the environment fills in addresses that the platform no longer uses.

    It is logged at every start, too.
    """
    successor = _SUCCESSORS.get(settings.environment)
    if successor is not None:
        yield RuleViolation(
            ("environment",),
            Message(
                "{name} has the addresses of guide 0.1.0, which are not used any more",
                name=settings.environment,
            ),
            Message(
                "the platform of today's guide is {successor}, with its own client_ids",
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
                "set listen.tls.cert_file and listen.tls.key_file, or listen on 127.0.0.1 behind a "
                "proxy with TLS on this machine"
            ),
        )


_browsers_that_are_callers: Final = _each_caller(
    (
        # A caller that is identified by address alone: a browser with such an address is treated as
        # that caller.
        lambda caller, settings: (
            settings.login.enabled and not caller.has_secret and not caller.client_cert_names
        ),
        RuleViolation(
            ("networks",),
            Message(
                "a browser at these addresses counts as this caller: it gets data with the "
                "gateway's token, without a sign-in"
            ),
            Message("set a key or password for the caller, or exclude the browsers' addresses"),
        ),
    )
)


def _callers_never_found(settings: Settings) -> Iterator[RuleViolation]:
    """Yield each caller without a secret all of whose addresses belong to callers before it."""
    taken: set[Network | None] = set()  # None: every address
    for index, caller in enumerate(settings.callers):
        networks = caller.networks or (None,)
        if caller.has_secret:
            continue
        if all(_is_taken(network, taken) for network in networks):
            yield RuleViolation(
                ("callers", index),
                Message("is never found: callers before it have all of its addresses"),
                Message("put the narrower network first, or set a key or password"),
            )
        elif not caller.client_cert_names:
            taken.update(networks)


def _is_taken(network: Network | None, taken: Collection[Network | None]) -> bool:
    return None in taken or (
        network is not None
        and any(network.supernet(new_prefix=bits) in taken for bits in range(network.prefixlen + 1))
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
            Message("listen on 127.0.0.1, and connect with ssh -L or over TLS"),
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
                    "store it in a separate file that only the gateway can read, and set {key} to "
                    "its path",
                    key=secret.file_key,
                ),
            )


def _written_password(
    is_in_file: Callable[[SettingPath], bool], section: str, settings: Settings
) -> Iterator[RuleViolation]:
    setting = (section, "url")
    password = getattr(getattr(settings, section).url, "password", None)
    if password is not None and is_in_file(setting):
        yield RuleViolation(
            setting,
            Message("contains a password in the settings file"),
            Message("set it with the variable {variable}", variable=variable_name(setting)),
        )


def _similar_operations(settings: Settings) -> Iterator[RuleViolation]:
    for index, caller in enumerate(settings.callers):
        for operation_index, name in enumerate(caller.allow.operations or ()):
            if (near := similar_operation(name)) is not None:
                yield RuleViolation(
                    ("callers", index, "allow", "operations", operation_index),
                    Message("is not an operation of FHIR R5"),
                    Message(
                        "did you mean {near}? If the platform defines it, all is well", near=near
                    ),
                )


def _unused_audit_targets(settings: Settings) -> Iterator[RuleViolation]:
    audit = settings.audit
    for key, sink, target in (
        ("path", "file", audit.path),
        ("syslog_url", "syslog", audit.syslog_url),
    ):
        if target is not None and audit.sink != sink:
            yield RuleViolation(
                ("audit", key),
                Message("is not used with audit.sink {sink}", sink=audit.sink),
                Message("set audit.sink: {sink}, or remove this", sink=sink),
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


_FOR_LOGIN: Final = Message("login.enabled needs it")
_login_addresses: Final = _rule_of(
    (
        lambda settings: settings.login.enabled and not settings.login.client_id,
        missing_key(("login", "client_id"), _FOR_LOGIN),
    ),
    (
        lambda settings: settings.login.enabled and not settings.login.redirect_uri,
        missing_key(("login", "redirect_uri"), _FOR_LOGIN),
    ),
    (
        lambda settings: (
            settings.login.enabled
            and settings.login.redirect_uri
            and is_remote_plaintext(settings.login.redirect_uri)
        ),
        RuleViolation(
            ("login", "redirect_uri"),
            Message("must begin with https://"),
            Message(
                "browsers store the session's cookie for https:// only; http:// is for loopback "
                "hosts"
            ),
        ),
    ),
    (
        lambda settings: (
            settings.login.enabled
            and settings.login.redirect_uri
            and not urlsplit(settings.login.redirect_uri).path.endswith("/auth/callback")
        ),
        RuleViolation(
            ("login", "redirect_uri"),
            Message("must end with /auth/callback"),
            Message(
                "the gateway answers nowhere else, e.g. https://gateway.clinic.uz/auth/callback"
            ),
        ),
    ),
)


def _login(settings: Settings) -> Iterator[RuleViolation]:
    if settings.login.enabled:
        yield from _client(("login",), settings.login, _RESERVED_FOR_LOGIN)


def _client(
    path: SettingPath, client: CredentialSettings | LoginSettings, reserved: frozenset[str]
) -> Iterator[RuleViolation]:
    """Yield violations of a client's keys; `reserved` are names of parameters, in lower case."""
    by_key = client.auth_method == "private_key_jwt"
    if by_key and not client.private_key_file:
        yield missing_key(
            (*path, "private_key_file"), Message("auth_method private_key_jwt signs with it")
        )
    if by_key and (client.client_secret or client.client_secret_file):
        hint = Message("remove it, or choose auth_method client_secret_post")
        key = "client_secret" if client.client_secret else "client_secret_file"
        yield RuleViolation((*path, key), Message("is not used with private_key_jwt"), hint)
    if not by_key and client.private_key_file:
        yield RuleViolation(
            (*path, "private_key_file"),
            Message("is not used with {auth_method}", auth_method=client.auth_method),
            Message("set auth_method: private_key_jwt, or remove it"),
        )
    for name in client.extra_params:
        if name.lower() in reserved:
            message, hint = Message("is set by the gateway itself"), Message("remove it")
            yield RuleViolation((*path, "extra_params", name), message, hint)


def find_violations(settings: Settings) -> Iterator[RuleViolation]:
    """Yield all violations."""
    return find_in_right_part(_RULES, settings)


_NOT_HERE: Final = Message("not available on this operating system")


def _unix_socket(section: str, settings: Settings) -> Iterator[RuleViolation]:
    """Yield a unix socket where the system, Windows, has none that the gateway supports."""
    if getattr(settings, section).address.path is not None and not os_support.HAS_UNIX_SOCKETS:
        yield RuleViolation(
            (section, "address"),
            Message("is a unix socket"),
            Message("{not_here}: use host:port", not_here=_NOT_HERE),
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


def _overlap(one: ListenAddress, other: ListenAddress) -> bool:
    if one.path is not None or other.path is not None:
        return one.path == other.path
    same_host = one.host == other.host or one.is_wildcard or other.is_wildcard
    return one.port == other.port != 0 and same_host


_OWN_NAME: Final = Message("give each operator a different name")


def _operators(settings: Settings) -> Iterator[RuleViolation]:
    first: dict[str, int] = {}
    for index, operator in enumerate(settings.admin.operators):
        path: SettingPath = ("admin", "operators", index)
        if not operator.secret_ref(index).is_given:
            yield missing_key((*path, "password"), Message("set password_file"))
        if first.setdefault(operator.name, index) != index:
            yield RuleViolation((*path, "name"), Message("is used twice"), _OWN_NAME)


def _pair(group: str, one: str, other: str, settings: Settings) -> Iterator[RuleViolation]:
    """Yield the key of a group that is missing beside another, which needs it."""
    values = attrgetter(group)(settings)
    for given, needed in ((one, other), (other, one)):
        if getattr(values, given) and not getattr(values, needed):
            hint = Message("it belongs to {name}", name=given)
            yield missing_key((*group.split("."), needed), hint)


def _credentials(settings: Settings) -> Iterator[RuleViolation]:
    if not settings.credentials:
        yield RuleViolation(
            ("credentials",),
            Message("is empty"),
            Message("set at least credentials.default with client_id and client_secret_file"),
        )
    for name, credential in settings.credentials.items():
        has_secret = credential.client_secret or credential.client_secret_file
        if credential.auth_method != "private_key_jwt" and not has_secret:
            yield missing_key(
                ("credentials", name, "client_secret"),
                Message("set client_secret_file: the path of a file with the client secret"),
            )
        yield from _client(("credentials", name), credential, _RESERVED_FOR_CREDENTIALS)


def _secrets(settings: Settings) -> Iterator[RuleViolation]:
    for secret in settings.secret_refs():
        if secret.value is not None and secret.file is not None:
            yield RuleViolation(
                secret.setting,
                Message("and {setting}_file are both set", setting=secret.setting[-1]),
                Message("remove the value, leave the file"),
            )


RESERVED_CALLERS: Final = frozenset({"anonymous", "session", "others"})
"""What stands for callers without a name of their own, in lower case."""


_callers: Final = _each_caller(
    (
        lambda caller, _: (
            caller.basic_auth
            and not caller.basic_auth.password
            and not caller.basic_auth.password_file
        ),
        missing_key(("basic_auth", "password"), Message("set password_file")),
    ),
    (
        lambda caller, _: caller.basic_auth and ":" in caller.basic_auth.username,
        RuleViolation(
            ("basic_auth", "username"),
            Message("holds a colon"),
            Message(
                "HTTP Basic reads everything after the colon as the password (RFC 7617); choose "
                "another name"
            ),
        ),
    ),
    (
        lambda caller, _: (
            caller.user_header
            and caller.purpose_header
            and caller.user_header.lower() == caller.purpose_header.lower()
        ),
        RuleViolation(
            ("purpose_header",),
            Message("is the same as user_header"),
            Message("one header names the user, another one the purpose"),
        ),
    ),
    (
        lambda caller, _: caller.name.lower() in RESERVED_CALLERS,
        RuleViolation(
            ("name",),
            Message("is a name that the gateway uses itself"),
            Message("the gateway uses this name for callers without one; choose another"),
        ),
    ),
)


def _callers_names(settings: Settings) -> Iterator[RuleViolation]:
    seen: dict[str, int] = {}
    for index, caller in enumerate(settings.callers):
        first = seen.setdefault(caller.name, index)
        if first != index:
            yield RuleViolation(
                ("callers", index, "name"),
                Message("is used twice"),
                Message(
                    "callers[{first}] has the same name; give each a different name", first=first
                ),
            )


def _callers_credentials(settings: Settings) -> Iterator[RuleViolation]:
    for index, caller in enumerate(settings.callers):
        key = ("callers", index, "credential")
        yield from _require_credential(key, caller.credential, settings)


def _require_credential(
    setting: SettingPath, name: str, settings: Settings
) -> Iterator[RuleViolation]:
    if name not in settings.credentials:
        known = ", ".join(settings.credentials) or Message("none")
        yield RuleViolation(
            setting,
            Message("is not the name of a credential"),
            Message("known here: {credentials}", credentials=known),
        )


_TO_FOLLOW: Final = Message("set audit.fhir_audit_events: true, or remove this")
_audit_repository: Final = _rule_of(
    (
        lambda settings: (
            settings.audit.fhir_profile != "base" and not settings.audit.fhir_audit_events
        ),
        RuleViolation(
            ("audit", "fhir_profile"), Message("needs audit.fhir_audit_events"), _TO_FOLLOW
        ),
    ),
    (
        lambda settings: settings.audit.fhir_endpoint and not settings.audit.fhir_audit_events,
        RuleViolation(
            ("audit", "fhir_endpoint"), Message("needs audit.fhir_audit_events"), _TO_FOLLOW
        ),
    ),
    (
        lambda settings: settings.audit.fhir_endpoint and settings.audit.sink == "off",
        RuleViolation(
            ("audit", "fhir_endpoint"),
            Message("is not used with audit.sink {sink}", sink="off"),
            Message("choose an audit.sink for the records themselves"),
        ),
    ),
    (
        lambda settings: settings.audit.fhir_ca_file and not settings.audit.fhir_endpoint,
        RuleViolation(
            ("audit", "fhir_ca_file"), Message("needs audit.fhir_endpoint"), Message("remove it")
        ),
    ),
    (
        lambda settings: settings.audit.fhir_credential and not settings.audit.fhir_endpoint,
        RuleViolation(
            ("audit", "fhir_credential"), Message("needs audit.fhir_endpoint"), Message("remove it")
        ),
    ),
)


def _audit_events(settings: Settings) -> Iterator[RuleViolation]:
    name = settings.audit.fhir_credential
    if name is not None:
        yield from _require_credential(("audit", "fhir_credential"), name, settings)


def _placeholders(settings: Settings) -> Iterator[RuleViolation]:
    for setting in find_placeholders(settings):
        yield RuleViolation(setting, PLACEHOLDER_MESSAGE, PLACEHOLDER_HINT)


_RULES: Final[tuple[_Rule, ...]] = (
    partial(_unix_socket, "listen"),
    partial(_unix_socket, "admin"),
    _rule_of(
        (
            lambda settings: settings.listen.reuse_port and not os_support.HAS_PORT_SHARING,
            RuleViolation(
                ("listen", "reuse_port"),
                Message("is true"),
                Message("{not_here}: use false", not_here=_NOT_HERE),
            ),
        ),
        (
            lambda settings: settings.listen.reuse_port and settings.listen.address.path,
            RuleViolation(
                ("listen", "reuse_port"),
                Message("has no effect on a unix socket"),
                Message("use host:port for listen.address, or false here"),
            ),
        ),
    ),
    partial(_plaintext, "platform", "fhir_base_url"),
    partial(_plaintext, "sso", "token_url"),
    partial(_plaintext, "sso", "authorize_url"),
    partial(_plaintext, "sso", "issuer"),
    partial(_plaintext, "audit", "fhir_endpoint"),
    _rule_of(
        (
            # With the login and no callers, a session is required, so that no request is anonymous.
            lambda settings: (
                not (
                    settings.callers
                    or settings.listen.allow_anonymous
                    or settings.login.enabled
                    or settings.listen.address.is_loopback
                )
            ),
            RuleViolation(
                ("listen", "address"),
                Message("is reachable from other machines, and `callers` is empty"),
                Message(
                    "listen on 127.0.0.1 or a unix socket, or name the callers. If every system "
                    "that reaches the address may use your credential, set listen.allow_anonymous: "
                    "true"
                ),
            ),
        )
    ),
    _rule_of(
        (
            lambda settings: _overlap(settings.listen.address, settings.admin.address),
            RuleViolation(
                ("admin", "address"),
                Message("is the same as listen.address"),
                Message("set another port; operators' pages never share the callers' port"),
            ),
        )
    ),
    _operators,
    partial(_pair, "listen.tls", "cert_file", "key_file"),
    _rule_of(
        (
            lambda settings: (
                settings.listen.tls.client_ca_file and not settings.listen.tls.cert_file
            ),
            RuleViolation(
                ("listen", "tls", "client_ca_file"),
                Message("has no effect without TLS"),
                Message("set cert_file and key_file too"),
            ),
        ),
    ),
    partial(_pair, "platform", "client_cert_file", "client_key_file"),
    _credentials,
    _rule_of(
        (
            lambda settings: (
                settings.credentials
                and "default" not in settings.credentials
                and not settings.callers
            ),
            missing_key(
                ("credentials", "default"),
                Message("it is used while `callers` is empty"),
            ),
        )
    ),
    _secrets,
    _callers,
    _callers_names,
    _callers_credentials,
    _each_caller(
        (
            lambda caller, settings: (
                caller.client_cert_names and not settings.listen.tls.client_ca_file
            ),
            RuleViolation(
                ("client_cert_names",),
                Message("cannot be checked"),
                Message(
                    "set listen.tls.client_ca_file; otherwise no client certificate is requested"
                ),
            ),
        )
    ),
    _rule_of(
        (
            lambda settings: settings.audit.sink == "file" and not os_support.HAS_FILE_LOCKS,
            RuleViolation(
                ("audit", "sink"),
                Message("is file"),
                Message("{not_here}: use syslog or stdout", not_here=_NOT_HERE),
            ),
        ),
        (
            lambda settings: settings.audit.sink == "file" and settings.audit.path is None,
            missing_key(("audit", "path"), Message("audit.sink: file writes there")),
        ),
        (
            lambda settings: settings.audit.sink == "syslog" and settings.audit.syslog_url is None,
            missing_key(("audit", "syslog_url"), Message("audit.sink: syslog sends there")),
        ),
    ),
    partial(_pair, "audit", "syslog_client_cert_file", "syslog_client_key_file"),
    _audit_repository,
    _audit_events,
    _rule_of(
        (
            lambda settings: (
                settings.tracing.secret_ref().is_given
                and settings.tracing.otlp_endpoint
                and is_remote_plaintext(settings.tracing.otlp_endpoint)
            ),
            RuleViolation(
                ("tracing", "otlp_endpoint"),
                Message("must begin with https://"),
                Message("tracing.authorization would travel unencrypted"),
            ),
        )
    ),
    _login_addresses,
    _login,
    _rule_of(
        (
            lambda settings: (
                settings.login.enabled and not (settings.sso.authorize_url or settings.sso.issuer)
            ),
            missing_key(("sso", "authorize_url"), _FOR_LOGIN),
        )
    ),
    _rule_of(
        (
            lambda settings: (
                settings.login.enabled and f"{settings.listen.base_path}/".startswith("/auth/")
            ),
            RuleViolation(
                ("listen", "base_path"),
                Message("conflicts with /auth, which belongs to the sign-in"),
                Message("choose another path, e.g. /fhir"),
            ),
        )
    ),
    _rule_of(
        (
            lambda settings: (
                settings.outbox.enabled and not settings.outbox.encryption_key_ref().is_given
            ),
            missing_key(
                ("outbox", "encryption_key"),
                Message(
                    "set encryption_key_file: 32 bytes as base64url, made with openssl rand "
                    "-base64 32 | tr '+/' '-_'; without it patient data would be on the disk "
                    "unencrypted"
                ),
            ),
        ),
        (
            lambda settings: settings.outbox.reveal and settings.audit.sink == "off",
            RuleViolation(
                ("outbox", "reveal"),
                Message("is not used with audit.sink {sink}", sink="off"),
                Message("choose an audit.sink, or remove this"),
            ),
        ),
    ),
    _each_caller(
        (
            lambda caller, settings: caller.outbox == "always" and not settings.outbox.enabled,
            RuleViolation(
                ("outbox",),
                Message("needs outbox.enabled"),
                Message("enable it, or remove this"),
            ),
        )
    ),
    _placeholders,
)
