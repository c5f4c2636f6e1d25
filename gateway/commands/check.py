"""What `dhp-gateway check` looks at beyond the settings themselves; opens no connection."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from gateway.config import Problem, SecretUnreadable, Settings
from gateway.config.secret_files import oddity
from gateway.oauth.client_auth import UnusableKey
from gateway.wiring import proofs


def problems(settings: Settings) -> Iterator[Problem]:
    """Files that cannot be read, and secrets that cannot be used or are hardly meant so."""
    yield from _unreadable_files(settings)
    yield from _unusable_secrets(settings)
    yield from _odd_secrets(settings)
    yield from _unusable_outbox(settings)


def _unreadable_files(settings: Settings) -> Iterator[Problem]:
    """Secrets and certificates that the gateway could not read when it starts."""
    hint = "check the path and who may read it"
    for source in settings.secret_sources():
        try:
            source.read()
        except SecretUnreadable as error:
            yield Problem(error.key, f"{error.path}: {error.why}", error.hint)
    roots = {
        "platform.ca_file": settings.platform.ca_file,
        "sso.ca_file": settings.sso.ca_file,
        "audit.syslog_ca_file": settings.audit.syslog_ca_file,
        "store.ca_file": settings.store.ca_file,
    }
    for key, path in roots.items():
        if path is not None and not os.access(path, os.R_OK):
            yield Problem(key, f"{path}: cannot be read", hint)


def _unusable_secrets(settings: Settings) -> Iterator[Problem]:
    """Secrets and keys that can be read but not used."""
    clients = [
        (each.auth_method, each.client_id, each.secret_source(name))
        for name, each in settings.credentials.items()
    ]
    login = settings.login
    if login.secret_source().is_given:
        clients.append((login.auth_method, login.client_id or "", login.secret_source()))
    for auth_method, client_id, source in clients:
        try:
            proofs(auth_method, client_id, source)
        except UnusableKey as error:
            key = source.key if source.file is None else f"{source.key}_file"
            where = "" if source.file is None else f"{source.file}: "
            yield Problem(key, f"{where}{error.why}")
        except SecretUnreadable:
            continue  # told already


def _odd_secrets(settings: Settings) -> Iterator[Problem]:
    """What a shell or an editor has put around a secret."""
    for source in settings.secret_sources():
        if source.setting[-1] == "private_key":
            continue
        with contextlib.suppress(SecretUnreadable):
            secret = source.read()
            if secret is not None and (odd := oddity(secret)) is not None:
                key = source.key if source.file is None else f"{source.key}_file"
                where = "" if source.file is None else f"{source.file}: "
                hint = "remove it; if the secret was issued so, go on: it is used as it stands"
                yield Problem(key, f"{where}{odd}", hint)


def _unusable_outbox(settings: Settings) -> Iterator[Problem]:
    """What the outbox lacks, but for what opening its database would tell."""
    if not settings.outbox.enabled:
        return
    # Takes time to import, and only who keeps writes needs it.
    from gateway.outbox.opening import encryption_key, require_extra
    from gateway.outbox.store import OutboxUnusable

    for look in (encryption_key, require_extra):
        try:
            settings.outbox.encryption_key_source().read()
            look(settings.outbox)
        except SecretUnreadable:
            continue  # told already
        except OutboxUnusable as error:
            key, _, why = str(error).partition(": ")
            yield Problem(key, why)
