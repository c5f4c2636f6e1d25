"""The checks of settings and files before a start, for `dhp-gateway check` and `doctor`.

They open no connection. Everything that a gateway with these settings would read at its start is
read here, so that the start does not end with exit code 3 for a reason that lies in settings or
files. The checks of files show whether the audit can be written, and which files only root reads.
They create no file: the gateway creates its files itself, so that its user owns them.

`CheckResult` is the result of any check of the doctor.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from gateway import os_support
from gateway.alerts.notify_addresses import (
    ADDRESS_HINT,
    MISSING,
    NOT_UNDERSTOOD,
    MissingExtraError,
    parse_address,
)
from gateway.app import identity_setup, observability_setup, reloader, shared_stores, tls_contexts
from gateway.app.identity_setup import client_authenticators
from gateway.config.problems import Problem, dotted
from gateway.config.section import (
    SecretReadError,
    find_in_right_part,
    named_files,
    suspicious_surrounding,
)
from gateway.errors import ClientKeyError, StartError
from gateway.i18n import EMPTY_MESSAGE, Message, exception_message, system_error

if TYPE_CHECKING:
    from gateway.config.outbound_settings import CredentialSettings
    from gateway.config.section import SecretRef
    from gateway.config.settings import Settings

State = Literal["ok", "failed", "skipped"]
Level = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check.

    `hint` says what to do after a failure. With the state `ok` it suggests an improvement, and the
    level is a warning.
    """

    check: Message
    state: State
    detail: Message
    hint: Message = EMPTY_MESSAGE

    @property
    def level(self) -> Level:
        """The state, or `warning` for `ok` with a hint."""
        return "warning" if self.state == "ok" and self.hint else self.state

    def line(self) -> Message:
        """Return the result as one line for the operator."""
        state = Message(self.level)
        text = Message(
            "{state:<8}{check}: {detail}", state=state, check=self.check, detail=self.detail
        )
        return Message("{text}. {hint}", text=text, hint=self.hint) if self.hint else text


_AUDIT: Final = Message("audit audit.path")
# systemd creates folders here when it starts the service (LogsDirectory).
_SYSTEM_LOGS: Final = Path("/var/log")
_ROOT: Final = 0


def check_files(settings: Settings) -> Iterator[CheckResult]:
    """Yield the check of the audit file, and for root the files that only root may read."""
    if settings.audit.sink == "file" and settings.audit.path is not None:
        yield _check_audit_file(settings.audit.path)
    if _is_root():
        yield from _for_root_only(settings)


def _is_made_by_systemd(path: Path) -> bool:
    """Return whether the file's folder does not exist yet and systemd will create it."""
    folder = path.absolute().parent
    return folder.parent == _SYSTEM_LOGS and not folder.exists()


def _check_audit_file(path: Path) -> CheckResult:
    """Check whether the audit file can be written; create nothing."""
    folder = path.absolute().parent
    make = Message(
        "Make it, for the gateway's user: install -d -m 0750 -o USER {folder}", folder=folder
    )
    if not folder.exists():
        if _is_made_by_systemd(path) and _is_root():
            detail = Message(
                "{folder} is not there; systemd makes it at the first start (LogsDirectory)",
                folder=folder,
            )
            return CheckResult(
                _AUDIT, "skipped", detail, Message("Without systemd: {make}", make=make)
            )
        return CheckResult(_AUDIT, "failed", Message("{folder} is not there", folder=folder), make)
    if not folder.is_dir():
        return CheckResult(
            _AUDIT,
            "failed",
            Message("{folder} is no folder", folder=folder),
            Message("Give another audit.path"),
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        hint = Message("Its owner must be the gateway's user: chown USER {folder}", folder=folder)
        return CheckResult(
            _AUDIT, "failed", Message("{folder} cannot be written", folder=folder), hint
        )
    if path.exists() and not (path.is_file() and os.access(path, os.R_OK | os.W_OK)):
        hint = Message("It must be a file of the gateway's user: chown USER {path}", path=path)
        return CheckResult(_AUDIT, "failed", Message("{path} cannot be written", path=path), hint)
    owned = next((candidate for candidate in (path, folder) if candidate.exists()), folder)
    if _is_root() and owned.stat().st_uid == _ROOT:
        hint = Message("The gateway's user must: chown USER {owned}", owned=owned)
        return CheckResult(
            _AUDIT, "ok", Message("{owned} belongs to root, who can write it", owned=owned), hint
        )
    return CheckResult(_AUDIT, "ok", Message("{folder} can be written", folder=folder))


def _for_root_only(settings: Settings) -> Iterator[CheckResult]:
    hidden = [str(path) for path in reloader.watched_files(settings) if _is_for_root_only(path)]
    if hidden:
        detail = Message("run as root; only root may read {hidden}", hidden=", ".join(hidden))
        hint = Message(
            "A gateway of another user needs them handed over (systemd's "
            "LoadCredential) or the right to read them; run the doctor as that "
            "user to be sure"
        )
        yield CheckResult(Message("files"), "ok", detail, hint)


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


def find_problems(settings: Settings, already_reported: Collection[str] = ()) -> Iterator[Problem]:
    """Yield unreadable files, and unusable or suspicious contents of files.

    `already_reported` are keys with a problem in the settings themselves: what depends on their
    values is not checked.
    """
    reported_keys = set(already_reported)
    for check in _CHECKS:
        # A problem of a key that was reported already is a consequence of the first one.
        found = [
            problem
            for problem in find_in_right_part((check,), settings)
            if problem.key not in reported_keys
        ]
        yield from found
        reported_keys.update(problem.key for problem in found)


def find_warnings(settings: Settings, now: Callable[[], float] = time.time) -> Iterator[Problem]:
    """Yield problems that do not prevent a start: certificates that have expired.

    `now` is Unix time.
    """
    for key, path, ends in tls_contexts.expired_certificates(settings, now()):
        day = datetime.fromtimestamp(ends, UTC).date().isoformat()
        yield Problem(
            key,
            _in_file(path, Message("the certificate expired on {day}", day=day)),
            Message("put a new one there"),
            code="certificate-expired",
        )


def _unreadable_secrets(settings: Settings) -> Iterator[Problem]:
    for secret in settings.secret_refs():
        try:
            secret.read()
        except SecretReadError as error:
            yield Problem(error.key, _in_file(error.path, error.problem), error.hint)


def _unreadable_files(settings: Settings) -> Iterator[Problem]:
    """Yield a problem for each unreadable certificate, key or secret file, in use or not."""
    for setting, path in named_files(settings):
        if (why := _read_problem(path)) is not None:
            hint = Message("check the path and who may read it")
            yield Problem(dotted(setting), _in_file(path, why), hint)


def _read_problem(path: Path) -> Message | None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        return system_error(error, Message("cannot be read"))
    return None


def _unusable_certificates(settings: Settings) -> Iterator[Problem]:
    for mistake in tls_contexts.certificate_problems(settings):
        yield _as_problem(mistake)


def _unusable_credentials(settings: Settings) -> Iterator[Problem]:
    for name, credential in settings.credentials.items():
        yield from find_in_right_part((partial(_unusable_credential, name),), credential)


def _unusable_credential(name: str, credential: CredentialSettings) -> Iterator[Problem]:
    secret = credential.secret_ref(name)
    return _unusable_secret(credential.auth_method, credential.client_id, secret)


def _unusable_login(settings: Settings) -> Iterator[Problem]:
    login = settings.login
    yield from _unusable_secret(login.auth_method, login.client_id or "", login.secret_ref())


def _unusable_secret(auth_method: str, client_id: str, secret: SecretRef) -> Iterator[Problem]:
    """Yield the problem of a secret or key that can be read but not used."""
    try:
        if secret.is_given:
            client_authenticators(auth_method, client_id, secret)
    except ClientKeyError as error:
        yield Problem(*secret.fault(error.problem))
    except SecretReadError:
        return  # reported by `_unreadable_secrets`


def _suspicious_secrets(settings: Settings) -> Iterator[Problem]:
    """Yield secrets surrounded by white space or quotation marks of a shell or an editor."""
    for secret in settings.secret_refs():
        if secret.setting[-1] == "private_key":
            continue
        with contextlib.suppress(SecretReadError):
            text = secret.read()
            if text is not None and (odd := suspicious_surrounding(text)) is not None:
                hint = Message(
                    "remove it; if the secret was issued so, go on: it is used as it stands"
                )
                yield Problem(*secret.fault(odd), hint)


def _duplicate_secrets(settings: Settings) -> Iterator[Problem]:
    for key, other in identity_setup.duplicate_secrets(settings):
        yield Problem(
            key, Message("is the same as {other}", other=other), identity_setup.OWN_SECRET
        )


def _refused(require: Callable[[Settings], object], settings: Settings) -> Iterator[Problem]:
    """Yield what a part of the gateway refuses to start with, without connecting to anything."""
    try:
        require(settings)
    except StartError as error:
        yield _as_problem(exception_message(error))


def _unusable_outbox(settings: Settings) -> Iterator[Problem]:
    """Yield problems of the outbox, except those that only opening its database would show."""
    if not settings.outbox.enabled:
        return
    # Imported here: the import takes time, and the outbox is optional.
    from gateway.outbox.open_outbox import require_extra
    from gateway.outbox.store.store_types import OutboxConfigurationError

    for check in (shared_stores.outbox_key, require_extra):
        try:
            settings.outbox.encryption_key_ref().read()
            check(settings.outbox)
        except SecretReadError:
            continue  # reported by `_unreadable_secrets`
        except (StartError, OutboxConfigurationError) as error:
            yield _as_problem(exception_message(error))


def _unusable_addresses(settings: Settings) -> Iterator[Problem]:
    """Yield each address of `alerts.notify` that cannot be notified."""
    try:
        for name, url in observability_setup.configured_addresses(settings):
            if parse_address(name, url) is None:
                yield Problem(name, NOT_UNDERSTOOD, ADDRESS_HINT)
    except MissingExtraError:
        yield Problem("alerts.notify", MISSING)
    except StartError:
        return  # reported by `_unreadable_secrets`


def _unwritable_audit(settings: Settings) -> Iterator[Problem]:
    audit = settings.audit
    if audit.sink != "file" or audit.path is None or _is_made_by_systemd(audit.path):
        return
    finding = _check_audit_file(audit.path)
    if finding.state == "failed":
        yield Problem("audit.path", finding.detail, finding.hint)


def _as_problem(message: Message) -> Problem:
    """Return the problem of a message that `setting_problem` has made: the key, and why."""
    return Problem(message.values["key"], message.values["why"])


def _in_file(path: Path, why: Message) -> Message:
    return Message("{path}: {why}", path=path, why=why)


# What can be read is judged after what cannot be read.
_CHECKS: Final = (
    _unreadable_secrets,
    _unreadable_files,
    _unusable_certificates,
    _unusable_credentials,
    _unusable_login,
    _suspicious_secrets,
    _duplicate_secrets,
    partial(_refused, shared_stores.require_store),
    partial(_refused, observability_setup.require_tracing),
    _unusable_outbox,
    _unusable_addresses,
    _unwritable_audit,
)
