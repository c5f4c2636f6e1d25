"""Judges everything that a gateway with these settings would read, before it does so.

`check` prints the findings, `doctor` prints them before it goes on to the network, and a start or a
reload ends at the first that failed. What is read again a moment later, while objects are made of
it, raises `StartError` with the same text.

No connection is opened and no file is created: the gateway creates its files itself, so that its
user owns them. `Finding` is also the result of each of the doctor's checks of the network.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from gateway import os_support
from gateway.alerts.notify_addresses import AlertAddressError, parse_address
from gateway.app import identity_setup, observability_setup, shared_stores, tls_contexts
from gateway.app.reloader import watched_files
from gateway.config.problems import InvalidValueError, dotted
from gateway.config.section import (
    SecretRef,
    WrongSettingError,
    find_in_right_part,
    named_files,
    permission_problem,
    suspicious_surrounding,
)
from gateway.config.settings import Settings
from gateway.config.value_types import on_one_line
from gateway.errors import StartError
from gateway.i18n import EMPTY_MESSAGE, Message, exception_message, setting_problem, system_error
from gateway.secret import Secret

# `odd`: works, but is probably not as it was meant. `expired`: a certificate. `exposed`: a secret
# that others may read. None of them prevents a start.
# `unreached`: skipped, because a server that the check needs cannot be reached.
State = Literal["ok", "skipped", "unreached", "odd", "expired", "exposed", "failed"]
Level = Literal["ok", "warning", "failed", "skipped"]
_LEVELS: Final[dict[str, Level]] = {
    "ok": "ok",
    "skipped": "skipped",
    "unreached": "skipped",
    "odd": "warning",
    "expired": "warning",
    "exposed": "failed",
    "failed": "failed",
}


@dataclass(frozen=True, slots=True)
class Check:
    """What is checked: its name for people, its `code`, and the setting it is about."""

    name: Message
    code: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check has found.

    `key` is the setting that is to be changed, where there is one. `hint` says what to do. With the
    state `ok` it suggests an improvement, and the level is a warning.
    """

    check: Check
    state: State
    detail: Message
    hint: Message = EMPTY_MESSAGE
    key: str = ""

    @property
    def level(self) -> Level:
        """How serious `doctor` finds it."""
        return "warning" if self.state == "ok" and self.hint else _LEVELS[self.state]

    def line(self) -> Message:
        """Return the finding as one line for the operator."""
        state = Message(self.level)
        values = {"state": state, "check": self.check.name, "detail": self.detail}
        # Other languages need other widths.
        text = Message.within("width of the state", "{state:<8}{check}: {detail}", **values)
        return Message("{text}. {hint:capital}", text=text, hint=self.hint) if self.hint else text


def require_usable(settings: Settings, ignored: tuple[str, ...] = ()) -> None:
    """Raise `StartError` with the first finding that failed.

    A finding about a key that the gateway does not use, or that begins with one of `ignored`, does
    not count.
    """
    ignored += tuple(_unused_keys(settings))
    for finding in preflight(settings):
        if finding.state == "failed" and not finding.key.startswith(ignored):
            raise StartError(setting_problem(finding.key, finding.detail, finding.hint))


def _unused_keys(settings: Settings) -> Iterator[str]:
    """Yield beginnings of keys whose files a gateway with these settings does not read."""
    audit, platform, sso, login = settings.audit, settings.platform, settings.sso, settings.login
    used = {*identity_setup.credentials_in_use(settings), audit.fhir_credential}
    yield from (f"credentials.{name}." for name in settings.credentials if name not in used)
    tracing_url = settings.tracing.otlp_endpoint or ""
    for key, is_used in {
        "login.": login.enabled,
        "outbox.": settings.outbox.enabled,
        "tracing.": bool(tracing_url),
        "tracing.ca_file": _is_https(tracing_url),
        "store.ca_file": settings.store.url.kind == "rediss",
        "audit.syslog_": audit.sink == "syslog" and (audit.syslog_url or "").startswith("tls:"),
        "audit.fhir_ca_file": _is_https(audit.fhir_endpoint or ""),
        "platform.ca_file": _is_https(platform.fhir_base_url),
        "platform.client_": _is_https(platform.fhir_base_url),
        "sso.ca_file": _is_https(sso.token_url)
        or (login.enabled and _is_https(sso.authorize_url or sso.issuer or "")),
    }.items():
        if not is_used:
            yield key


def _is_https(url: str) -> bool:
    return urlsplit(url).scheme == "https"


def preflight(
    settings: Settings,
    already_reported: Collection[str] = (),
    wall_clock: Callable[[], float] = time.time,
) -> Iterator[Finding]:
    """Yield all findings; of wrong settings, those of the right part.

    `already_reported` are keys with a problem in the settings themselves: what depends on their
    values is not checked. `wall_clock` returns Unix time, for the expiry of certificates.
    """
    reported_keys = set(already_reported)
    for check in _checks(wall_clock):
        # A finding about a key that was reported already is a consequence of the first one.
        found = [
            finding
            for finding in find_in_right_part((check,), settings)
            if finding.key not in reported_keys
        ]
        yield from found
        reported_keys.update(finding.key for finding in found if finding.state == "failed")


def _of_setting(state: State, key: str, detail: Message, hint: Message = EMPTY_MESSAGE) -> Finding:
    check = Check(Message("setting {key}", key=key), "setting", key)
    return Finding(check, state, detail, hint, key)


def failed_setting(error: Exception) -> Finding:
    """Return the finding of an error whose message `setting_problem` has made."""
    values = exception_message(error).values
    return _of_setting("failed", values["key"], values["why"], values.get("hint", EMPTY_MESSAGE))


def _in_file(path: Path | None, why: Message) -> Message:
    return Message("{path}: {why}", path=path, why=why)


def _duplicate_secrets(settings: Settings) -> Iterator[Finding]:
    """Yield each API key, and password of the same user name, that an earlier caller has too.

    Digests are compared. Unreadable secrets are left out.
    """
    first: dict[tuple[str, str | None, bytes], str] = {}
    for index, caller in enumerate(settings.callers):
        for source in caller.secret_refs(index):
            with contextlib.suppress(StartError):
                secret = source.read()
                if secret is None:
                    continue
                user = caller.basic_auth.username if caller.basic_auth is not None else None
                kind = str(source.setting[-1])
                # White space around a field's value is not part of it (RFC 9110 section 5.5).
                text = secret.reveal() if kind == "password" else secret.reveal().strip()
                digest = hashlib.sha256(text.encode()).digest()
                identity_key = (kind, user if kind == "password" else None, digest)
                other = first.setdefault(identity_key, source.given_key)
                if other != source.given_key:
                    yield Finding(
                        _check_of(source),
                        "failed",
                        Message("is the same as {other}", other=other),
                        Message(
                            "set a different one for each caller; otherwise it is unknown which of "
                            "them called"
                        ),
                        source.given_key,
                    )


def _check_of(secret: SecretRef) -> Check:
    return Check(Message("secret {key}", key=secret.key), "secret", secret.key)


def _secrets(settings: Settings) -> Iterator[Finding]:
    """Yield for each secret whether it can be read and used, is as it was meant, and is hidden."""
    for secret in settings.secret_refs():
        check = _check_of(secret)
        try:
            with contextlib.suppress(WrongSettingError):
                _use(settings, secret)
            text = secret.read()
            found = [*_odd_secret(check, secret, text), *_exposed_secret(check, secret)]
            found = found or [_usable_secret(check, secret)]
        except StartError as error:
            found = [replace(failed_setting(error), check=check)]
        except OSError as error:
            # The file has vanished since it was read.
            detail = _in_file(secret.file, system_error(error, Message("cannot be read")))
            found = [Finding(check, "failed", detail, key=secret.given_key)]
        yield from found


# These are sent in a header field (RFC 7617 section 2), so that none with two lines can ever match;
# a file with two client secrets has one on each line.
_ON_ONE_LINE: Final = ("api_key", "password", "authorization")


def _odd_secret(check: Check, secret: SecretRef, text: Secret | None) -> Iterator[Finding]:
    kind = secret.setting[-1]
    if text is None or kind == "private_key":
        return
    if kind in _ON_ONE_LINE:
        try:
            on_one_line(text.reveal())
        except InvalidValueError as error:
            key, detail = secret.fault(error.message)
            yield Finding(check, "failed", detail, error.hint, key)
            return
    if (odd := suspicious_surrounding(text)) is not None:
        hint = Message(
            "remove it; if the secret was issued in this form, change nothing: it is used as it is"
        )
        key, detail = secret.fault(odd)
        yield Finding(check, "odd", detail, hint, key)


def exposed_secrets(settings: Settings) -> Iterator[Finding]:
    """Yield the secrets whose files others can read or change. The files are not read."""
    for secret in settings.secret_refs():
        with contextlib.suppress(OSError):
            yield from _exposed_secret(_check_of(secret), secret)


def _exposed_secret(check: Check, secret: SecretRef) -> Iterator[Finding]:
    if secret.file is not None and (exposed := permission_problem(secret.file)) is not None:
        yield Finding(
            check,
            "exposed",
            Message("{path} {why}", path=secret.file, why=exposed),
            Message("Run: chmod 0600 {path}", path=secret.file),
            secret.file_key,
        )


def _use(settings: Settings, secret: SecretRef) -> None:
    """Read a secret as the part of the gateway does that uses it. Raises `StartError`."""
    match secret.setting:
        case ("credentials", str(name), _):
            identity_setup.credential_authenticators(settings, name)
        case ("login", _):
            identity_setup.login_authentications(settings)
        case ("store", _):
            shared_stores.store_key(settings.store)
        case ("outbox", _) if settings.outbox.enabled:
            shared_stores.outbox_key(settings.outbox)


def _usable_secret(check: Check, secret: SecretRef) -> Finding:
    path, hint = secret.file, EMPTY_MESSAGE
    if path is None:
        detail = Message("set in the settings themselves")
    elif os_support.HAS_FILE_MODES:
        mode = stat.S_IMODE(path.stat().st_mode)
        detail = Message(
            "{path} is readable, access is restricted (mode {mode:04o})", path=path, mode=mode
        )
    else:
        detail = Message("{path} is readable", path=path)
        hint = Message("Check who may read it: icacls {path}", path=path)
    return Finding(check, "ok", detail, hint, secret.given_key)


def _files(settings: Settings, wall_clock: Callable[[], float]) -> Iterator[Finding]:
    """Yield unreadable files, unusable certificates and CAs, in use or not, and expired ones."""
    files = dict(named_files(settings))
    problems = {path: _read_problem(path) for path in files.values()}
    for key, path in files.items():
        name = dotted(key)
        if (why := problems[path]) is not None:
            yield _of_setting("failed", name, _in_file(path, why), tls_contexts.CHECK_PATH)
            continue
        if not name.endswith(("ca_file", "cert_file")):
            continue
        private_key = files.get((*key[:-1], str(key[-1]).replace("cert_file", "key_file")))
        try:
            if private_key is None or problems[private_key] is None:
                tls_contexts.require_usable(name, path, private_key)
        except StartError as error:
            yield failed_setting(error)
        yield from _expired(name, path, wall_clock())


def _read_problem(path: Path) -> Message | None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        return system_error(error, Message("cannot be read"))
    return None


def _expired(key: str, path: Path, now: float) -> Iterator[Finding]:
    with contextlib.suppress(OSError, ValueError):
        ends = tls_contexts.expiry_time(path, is_ca=key.endswith("ca_file"))
        if ends < now:
            day = datetime.fromtimestamp(ends, UTC).date().isoformat()
            detail = _in_file(path, Message("the certificate expired on {day}", day=day))
            yield _of_setting("expired", key, detail, Message("replace it"))


def _missing_redis(settings: Settings) -> Iterator[Finding]:
    if settings.store.url.kind != "memory" and not _is_installed("gateway.oauth.redis_token_store"):
        why = Message("needs the extra `redis`: pip install 'dhp-gateway[redis]'")
        yield _of_setting("failed", "store.url", why)


def _missing_opentelemetry(settings: Settings) -> Iterator[Finding]:
    endpoint = settings.tracing.otlp_endpoint
    if endpoint is not None and not _is_installed("gateway.telemetry.otlp_export"):
        why = Message("needs the extra `otel`: pip install 'dhp-gateway[otel]'")
        yield _of_setting("failed", "tracing.otlp_endpoint", why)


def _is_installed(module: str) -> bool:
    """Return whether a module of the gateway that needs an extra can be imported."""
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def _missing_database_driver(settings: Settings) -> Iterator[Finding]:
    if not settings.outbox.enabled:
        return
    # Imported here: the import takes time, and the outbox is optional.
    from gateway.outbox.open_outbox import require_extra

    try:
        require_extra(settings.outbox)
    except StartError as error:
        yield failed_setting(error)


def address_check(name: Message) -> Check:
    """Return the check of an address of `alerts.notify`; its English name makes the code."""
    return Check(name, name.lower().replace(" ", "-"))


def _unusable_addresses(settings: Settings) -> Iterator[Finding]:
    """Yield each address of `alerts.notify` that cannot be notified."""
    try:
        for name, url in observability_setup.configured_addresses(settings):
            try:
                parse_address(name, url)
            except AlertAddressError as error:
                yield replace(failed_setting(error), check=address_check(name))
    except StartError as error:
        yield replace(failed_setting(error), check=Check(Message("alerts"), "alerts"))


def _audit_file(settings: Settings) -> Iterator[Finding]:
    """Yield whether the audit file can be written; create nothing."""
    path = settings.audit.path
    if settings.audit.sink != "file" or path is None:
        return
    folder = path.absolute().parent
    try:
        state, detail, hint = _judge_audit_file(path, folder)
        if state == "ok" and shutil.disk_usage(folder).free < _LEAST_FREE:
            # It does not prevent a start: a gateway that waits for space shows what it waits for.
            state, hint = "odd", Message("Free space")
            detail = Message("{folder}: the disk is full", folder=folder)
    except OSError as error:
        why = Message("cannot be written: {why}", why=system_error(error, EMPTY_MESSAGE))
        state, detail, hint = "failed", _in_file(path, why), EMPTY_MESSAGE
    check = Check(Message("audit audit.path"), "audit", "audit.path")
    yield Finding(check, state, detail, hint, "audit.path")


# Bytes that some records need.
_LEAST_FREE: Final = 65536
# systemd creates folders here when it starts the service (LogsDirectory).
_SYSTEM_LOGS: Final = Path("/var/log")
_ROOT: Final = 0


def _judge_audit_file(path: Path, folder: Path) -> tuple[State, Message, Message]:
    if not os_support.is_there(folder):
        make = Message(
            "Create it for the gateway's user: install -d -m 0750 -o USER {folder}", folder=folder
        )
        if folder.parent == _SYSTEM_LOGS:
            return (
                "skipped",
                Message(
                    "{folder} does not exist; systemd creates it at the first start "
                    "(LogsDirectory)",
                    folder=folder,
                ),
                Message("Without systemd: {make}", make=make),
            )
        return "failed", Message("{folder} does not exist", folder=folder), make
    if not folder.is_dir():
        return (
            "failed",
            Message("{folder} is not a folder", folder=folder),
            Message("Set another audit.path"),
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        return (
            "failed",
            Message("{folder} cannot be written", folder=folder),
            Message("Its owner must be the gateway's user: chown USER {folder}", folder=folder),
        )
    if path.is_dir():
        return (
            "failed",
            Message("{path} is a folder", path=path),
            Message("Set another audit.path"),
        )
    if path.exists() and not (path.is_file() and os.access(path, os.R_OK | os.W_OK)):
        return (
            "failed",
            Message("{path} cannot be written", path=path),
            Message("It must be a file of the gateway's user: chown USER {path}", path=path),
        )
    owned = path if path.exists() else folder
    if _is_root() and owned.stat().st_uid == _ROOT:
        return (
            "ok",
            Message("{owned} belongs to root, who can write there", owned=owned),
            Message(
                "The gateway's user must be able to write there: chown USER {owned}", owned=owned
            ),
        )
    return "ok", Message("{folder} can be written", folder=folder), EMPTY_MESSAGE


def _files_of_root(settings: Settings) -> Iterator[Finding]:
    """Yield, for root, the files that only root may read."""
    if not _is_root():
        return
    hidden = [str(path) for path in watched_files(settings) if _is_for_root_only(path)]
    if hidden:
        yield Finding(
            Check(Message("files"), "files"),
            "ok",
            Message("run as root; only root may read {hidden}", hidden=", ".join(hidden)),
            Message(
                "If the gateway runs as another user, hand the files over to it (systemd's "
                "LoadCredential) or let it read them. To be sure, run the doctor as that user"
            ),
        )


def _is_for_root_only(path: Path) -> bool:
    try:
        file = path.resolve(strict=True)
        return _is_closed_to_service(file.stat(), stat.S_IRGRP, stat.S_IROTH) or any(
            _is_closed_to_service(folder.stat(), stat.S_IXGRP, stat.S_IXOTH)
            for folder in file.parents
        )
    except OSError:
        return False


def _is_closed_to_service(stat_result: os.stat_result, group: int, others: int) -> bool:
    if stat_result.st_uid != _ROOT or stat_result.st_mode & others:
        return False
    return stat_result.st_gid == _ROOT or not stat_result.st_mode & group


def _is_root() -> bool:
    return os_support.HAS_FILE_MODES and os.geteuid() == _ROOT


def _checks(wall_clock: Callable[[], float]) -> tuple[Callable[[Settings], Iterator[Finding]], ...]:
    return (
        _duplicate_secrets,
        _secrets,
        partial(_files, wall_clock=wall_clock),
        _missing_redis,
        _missing_opentelemetry,
        _missing_database_driver,
        _unusable_addresses,
        _audit_file,
        _files_of_root,
    )
