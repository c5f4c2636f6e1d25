"""Writes as callers enqueue them."""

from __future__ import annotations

from gateway.config.operations_settings import OutboxSettings
from gateway.outbox.entry import NewEntry, QueuedRequest, RecoveryMode

ROOMY = OutboxSettings(max_entries=100_000, max_bytes=1 << 40)
FIELDS = ((b"content-type", b"application/fhir+json"), (b"x-note", b"\xd0\x98\xff"))


def write(
    name: str,
    method: str = "PUT",
    *,
    body: bytes = b"{}",
    fields: tuple[tuple[bytes, bytes], ...] = FIELDS,
) -> QueuedRequest:
    interaction = {"PUT": "update", "POST": "create", "DELETE": "delete"}[method]
    suffix = "Observation" if method == "POST" else f"Observation/{name}"
    return QueuedRequest(
        method=method,
        target_suffix=suffix,
        fields=fields,
        body=body,
        credential="lab",
        interaction=interaction,
        resource="Observation",
        resource_id=None if method == "POST" else name,
        request_id=f"r-{name}",
    )


def draft(
    name: str,
    *orders: str,
    caller: str = "lis",
    method: str = "PUT",
    recovery: RecoveryMode = RecoveryMode.RESEND,
    **more: object,
) -> NewEntry:
    """Return a new entry with these ordering keys; without any, with a unique one."""
    request = write(name, method, body=f'{{"id":"{name}"}}'.encode())
    known = frozenset(orders or (f"Observation/{name}",))
    return NewEntry(caller, request, known, recovery, **more)  # type: ignore[arg-type]
