"""What `dhp-gateway check` looks at beyond the settings themselves; opens no connection.

Whatever a gateway with these settings would read when it starts is read here, so that it does not
end with code 3 for a reason that lies in settings or files.
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
from gateway.oauth.client_auth import ClientKeyError
from gateway.phrases import EMPTY_PHRASE, Phrase, exception_phrase, system_error
from gateway.process import alerting, certificates, factories, shared_store, tracing_factory
from gateway.process.factories import StartError, client_authenticators


def find_problems(settings: Settings, already_reported: Collection[str] = ()) -> Iterator[Problem]:
    """Files that cannot be read, and what is in them that cannot be used or is hardly meant so.

    `already_reported` are keys about which enough is said: they were left out of the settings, and
    what depends on them is not judged.
    """
    said = set(already_reported)
    for look in (
        *(_unreadable_secrets(settings), _unreadable_files(settings)),
        *(_unusable_certificates(settings), _unusable_secrets(settings, already_reported)),
        *(_suspicious_secrets(settings), _duplicate_secrets(settings), _unusable_parts(settings)),
        *(_unusable_outbox(settings), _unusable_addresses(settings), _unwritable_audit(settings)),
    ):
        # What follows from a problem that was told is none of its own.
        found = [problem for problem in look if problem.key not in said]
        yield from found
        said.update(problem.key for problem in found)


def find_warnings(settings: Settings, now: Callable[[], float] = time.time) -> Iterator[Problem]:
    """What is in files that a gateway starts with all the same: certificates that have expired."""
    for key, path, ends in certificates.expired_certificates(settings, now()):
        day = datetime.fromtimestamp(ends, UTC).date().isoformat()
        yield Problem(
            key,
            _in_file(path, Phrase("the certificate expired on {day}", day=day)),
            Phrase("put a new one there"),
            code="certificate-expired",
        )


def _unreadable_secrets(settings: Settings) -> Iterator[Problem]:
    for source in settings.secret_sources():
        try:
            source.read()
        except SecretReadError as error:
            yield Problem(error.key, _in_file(error.path, error.problem), error.hint)


def _unreadable_files(settings: Settings) -> Iterator[Problem]:
    """Certificates and keys, and secrets that are not used as things are."""
    for setting, path in named_files(settings):
        if (why := _read_problem(path)) is not None:
            hint = Phrase("check the path and who may read it")
            yield Problem(dotted(setting), _in_file(path, why), hint)


def _read_problem(path: Path) -> Phrase | None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        return system_error(error, Phrase("cannot be read"))
    return None


def _unusable_certificates(settings: Settings) -> Iterator[Problem]:
    for mistake in certificates.certificate_problems(settings):
        yield _as_problem(mistake)


def _unusable_secrets(settings: Settings, told: Collection[str]) -> Iterator[Problem]:
    """Secrets and keys that can be read but not used, where it is known how they would be."""
    clients = [
        (each.auth_method, each.client_id, each.secret_source(name))
        for name, each in settings.credentials.items()
    ]
    login = settings.login
    if login.secret_source().is_given:
        clients.append((login.auth_method, login.client_id or "", login.secret_source()))
    for auth_method, client_id, source in clients:
        if not source.is_given or dotted((*source.setting[:-1], "auth_method")) in told:
            continue
        try:
            client_authenticators(auth_method, client_id, source)
        except ClientKeyError as error:
            yield _of_secret(source, error.problem)
        except SecretReadError:
            continue  # told already


def _suspicious_secrets(settings: Settings) -> Iterator[Problem]:
    """What a shell or an editor has put around a secret."""
    for source in settings.secret_sources():
        if source.setting[-1] == "private_key":
            continue
        with contextlib.suppress(SecretReadError):
            secret = source.read()
            if secret is not None and (odd := suspicious_surrounding(secret)) is not None:
                hint = Phrase(
                    "remove it; if the secret was issued so, go on: it is used as it stands"
                )
                yield _of_secret(source, odd, hint)


def _duplicate_secrets(settings: Settings) -> Iterator[Problem]:
    for key, other in factories.duplicate_secrets(settings):
        yield Problem(key, Phrase("is the same as {other}", other=other), factories.OWN_SECRET)


def _unusable_parts(settings: Settings) -> Iterator[Problem]:
    """The shared store and the collector, not yet asked for anything."""
    for look in (shared_store.require_store, tracing_factory.require_tracing):
        try:
            look(settings)
        except StartError as error:
            yield _as_problem(exception_phrase(error))


def _unusable_outbox(settings: Settings) -> Iterator[Problem]:
    """What the outbox lacks, but for what opening its database would tell."""
    if not settings.outbox.enabled:
        return
    # Takes time to import, and only who keeps writes needs it.
    from gateway.outbox.opening import encryption_key, require_extra
    from gateway.outbox.store import OutboxConfigurationError

    for look in (encryption_key, require_extra):
        try:
            settings.outbox.encryption_key_source().read()
            look(settings.outbox)
        except SecretReadError:
            continue  # told already
        except OutboxConfigurationError as error:
            yield _as_problem(exception_phrase(error))


def _unusable_addresses(settings: Settings) -> Iterator[Problem]:
    """Each of `alerts.notify` that nobody could be told at."""
    try:
        for name, url in alerting.configured_addresses(settings):
            if parse_address(name, url) is None:
                yield Problem(name, NOT_UNDERSTOOD, ADDRESS_HINT)
    except MissingExtraError:
        yield Problem("alerts.notify", MISSING)
    except StartError:
        return  # told already


def _unwritable_audit(settings: Settings) -> Iterator[Problem]:
    audit = settings.audit
    if audit.sink != "file" or audit.path is None or doctor_files.is_made_by_systemd(audit.path):
        return
    finding = doctor_files.check_audit_file(audit.path)
    if finding.state == "failed":
        yield Problem("audit.path", finding.detail, finding.hint)


def _as_problem(told: Phrase) -> Problem:
    """Of what `run` would say before it ends: the key, and why."""
    return Problem(told.values["key"], told.values["why"])


def _of_secret(source: SecretSource, why: Phrase, hint: Phrase = EMPTY_PHRASE) -> Problem:
    """About a secret that is given in one of two forms."""
    if source.file is None:
        return Problem(source.key, why, hint)
    return Problem(f"{source.key}_file", _in_file(source.file, why), hint)


def _in_file(path: Path, why: Phrase) -> Phrase:
    return Phrase("{path}: {why}", path=path, why=why)
