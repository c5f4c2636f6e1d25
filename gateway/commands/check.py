"""The checks of `dhp-gateway check` beyond the settings themselves; they open no connection.

Everything that a gateway with these settings would read at its start is read here, so that the
start does not end with exit code 3 for a reason that lies in settings or files.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path

from gateway.admin.alerts.addresses import (
    ADDRESS_HINT,
    MISSING,
    NOT_UNDERSTOOD,
    MissingExtraError,
    parse_address,
)
from gateway.commands import doctor_files
from gateway.config import Problem, SecretReadError, SecretSource, Settings, named_files
from gateway.config.problems import dotted
from gateway.config.secret_files import suspicious_surrounding
from gateway.i18n import EMPTY_MESSAGE, Message, exception_message, system_error
from gateway.oauth.client_auth import ClientKeyError
from gateway.process import alerting, certificates, factories, shared_store, tracing_factory
from gateway.process.factories import StartError, client_authenticators


def find_problems(settings: Settings, already_reported: Collection[str] = ()) -> Iterator[Problem]:
    """Yield unreadable files, and unusable or suspicious contents of files.

    `already_reported` are keys with a problem in the settings themselves: they were left out of the
    settings, and what depends on them is not checked.
    """
    reported_keys = set(already_reported)
    for problems in (
        *(_unreadable_secrets(settings), _unreadable_files(settings)),
        *(_unusable_certificates(settings), _unusable_secrets(settings, already_reported)),
        *(_suspicious_secrets(settings), _duplicate_secrets(settings), _unusable_parts(settings)),
        *(_unusable_outbox(settings), _unusable_addresses(settings), _unwritable_audit(settings)),
    ):
        # A problem of a key that was reported already is a consequence of the first one.
        found = [problem for problem in problems if problem.key not in reported_keys]
        yield from found
        reported_keys.update(problem.key for problem in found)


def find_warnings(settings: Settings, now: Callable[[], float] = time.time) -> Iterator[Problem]:
    """Yield problems that do not prevent a start: certificates that have expired.

    `now` is Unix time.
    """
    for key, path, ends in certificates.expired_certificates(settings, now()):
        day = datetime.fromtimestamp(ends, UTC).date().isoformat()
        yield Problem(
            key,
            _in_file(path, Message("the certificate expired on {day}", day=day)),
            Message("put a new one there"),
            code="certificate-expired",
        )


def _unreadable_secrets(settings: Settings) -> Iterator[Problem]:
    for source in settings.secret_sources():
        try:
            source.read()
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
    for mistake in certificates.certificate_problems(settings):
        yield _as_problem(mistake)


def _unusable_secrets(settings: Settings, reported_keys: Collection[str]) -> Iterator[Problem]:
    """Yield secrets and keys that can be read but not used, if the `auth_method` is known."""
    clients = [
        (credential.auth_method, credential.client_id, credential.secret_source(name))
        for name, credential in settings.credentials.items()
    ]
    login = settings.login
    if login.secret_source().is_given:
        clients.append((login.auth_method, login.client_id or "", login.secret_source()))
    for auth_method, client_id, source in clients:
        if not source.is_given or dotted((*source.setting[:-1], "auth_method")) in reported_keys:
            continue
        try:
            client_authenticators(auth_method, client_id, source)
        except ClientKeyError as error:
            yield _secret_problem(source, error.problem)
        except SecretReadError:
            continue  # reported by `_unreadable_secrets`


def _suspicious_secrets(settings: Settings) -> Iterator[Problem]:
    """Yield secrets surrounded by white space or quotation marks of a shell or an editor."""
    for source in settings.secret_sources():
        if source.setting[-1] == "private_key":
            continue
        with contextlib.suppress(SecretReadError):
            secret = source.read()
            if secret is not None and (odd := suspicious_surrounding(secret)) is not None:
                hint = Message(
                    "remove it; if the secret was issued so, go on: it is used as it stands"
                )
                yield _secret_problem(source, odd, hint)


def _duplicate_secrets(settings: Settings) -> Iterator[Problem]:
    for key, other in factories.duplicate_secrets(settings):
        yield Problem(key, Message("is the same as {other}", other=other), factories.OWN_SECRET)


def _unusable_parts(settings: Settings) -> Iterator[Problem]:
    """Yield problems of the shared store and of the collector, without connecting to them."""
    for require in (shared_store.require_store, tracing_factory.require_tracing):
        try:
            require(settings)
        except StartError as error:
            yield _as_problem(exception_message(error))


def _unusable_outbox(settings: Settings) -> Iterator[Problem]:
    """Yield problems of the outbox, except those that only opening its database would show."""
    if not settings.outbox.enabled:
        return
    # Imported here: the import takes time, and the outbox is optional.
    from gateway.outbox.opening import encryption_key, require_extra
    from gateway.outbox.store import OutboxConfigurationError

    for check in (encryption_key, require_extra):
        try:
            settings.outbox.encryption_key_source().read()
            check(settings.outbox)
        except SecretReadError:
            continue  # reported by `_unreadable_secrets`
        except OutboxConfigurationError as error:
            yield _as_problem(exception_message(error))


def _unusable_addresses(settings: Settings) -> Iterator[Problem]:
    """Yield each address of `alerts.notify` that cannot be notified."""
    try:
        for name, url in alerting.configured_addresses(settings):
            if parse_address(name, url) is None:
                yield Problem(name, NOT_UNDERSTOOD, ADDRESS_HINT)
    except MissingExtraError:
        yield Problem("alerts.notify", MISSING)
    except StartError:
        return  # reported by `_unreadable_secrets`


def _unwritable_audit(settings: Settings) -> Iterator[Problem]:
    audit = settings.audit
    if audit.sink != "file" or audit.path is None or doctor_files.is_made_by_systemd(audit.path):
        return
    finding = doctor_files.check_audit_file(audit.path)
    if finding.state == "failed":
        yield Problem("audit.path", finding.detail, finding.hint)


def _as_problem(message: Message) -> Problem:
    """Return the problem of a message that `setting_problem` has made: the key, and why."""
    return Problem(message.values["key"], message.values["why"])


def _secret_problem(source: SecretSource, why: Message, hint: Message = EMPTY_MESSAGE) -> Problem:
    """Return a problem of a secret, which is given in the settings or by a file."""
    if source.file is None:
        return Problem(source.key, why, hint)
    return Problem(f"{source.key}_file", _in_file(source.file, why), hint)


def _in_file(path: Path, why: Message) -> Message:
    return Message("{path}: {why}", path=path, why=why)
