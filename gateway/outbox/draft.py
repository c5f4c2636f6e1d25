"""Classification of a write, and construction of its new outbox entry."""

from __future__ import annotations

from dataclasses import replace

from gateway.fhir import weight
from gateway.fhir.interaction import Interaction
from gateway.fhir.tree import BodyTooLargeError
from gateway.http.client.response_header import remove_digest_fields
from gateway.http.content_coding import DECODABLE, decode_body, parse_content_encoding
from gateway.http.target import RequestTarget
from gateway.outbox.entry import FieldLines, NewEntry, QueuedRequest, RecoveryMode
from gateway.outbox.one_by_one import MAX_INLINE_BYTES, SerialExecutor
from gateway.outbox.pacing import INDEX_LAG
from gateway.outbox.qualifying import BY_ID, WriteClassification, WriteDescription, classify_write
from gateway.pipeline.request_context import RequestContext


class WriteNotClassifiedError(Exception):
    """The body is not buffered, is too large to parse, or waited too long for the parser."""


class WriteClassifier:
    """The classification of one request, computed when it is first needed, and only once."""

    def __init__(self, context: RequestContext, serial_executor: SerialExecutor) -> None:
        self.context = context
        self._serial_executor = serial_executor
        self._cached: list[WriteClassification | None] = []

    async def classification(self) -> WriteClassification | None:
        """Return the classification, or None if the write is not to be queued.

        Raises `WriteNotClassifiedError`.
        """
        if not self._cached:
            self._cached.append(await _classify(self.context, self._serial_executor))
        return self._cached[0]


async def _classify(
    context: RequestContext, serial_executor: SerialExecutor
) -> WriteClassification | None:
    body = b"" if context.body is None else await context.body.read_all()
    if body is None:
        raise WriteNotClassifiedError
    header = context.header
    write = WriteDescription(
        context.interaction.code,
        context.target.path.removesuffix("?"),
        context.target.query,
        content_type=header.text(b"content-type"),
        if_none_exist=header.text(b"if-none-exist"),
        sent=len(body),
    )
    coding = parse_content_encoding(header.text(b"content-encoding"))
    plain = _decode_small(body, coding)
    try:
        if plain is not None:
            return await serial_executor.run(
                len(plain), context.caller.name, lambda: classify_write(replace(write, body=plain))
            )
        if coding not in DECODABLE:
            return None
        # The decoded size is known only after decoding, which happens in the thread.
        return await serial_executor.run(
            None, context.caller.name, lambda: classify_write(_decode_content(write, body, coding))
        )
    except (BodyTooLargeError, TimeoutError):
        raise WriteNotClassifiedError from None


def _decode_small(body: bytes, coding: str | None) -> bytes | None:
    """Return the content if it is not coded or decodes to at most `MAX_INLINE_BYTES`, else None."""
    if not body or coding is None:
        return body
    return (decode_body(body, coding, MAX_INLINE_BYTES) or None) if coding in DECODABLE else None


def _decode_content(write: WriteDescription, body: bytes, coding: str) -> WriteDescription:
    """Return the write with its body decoded.

    Raises `BodyTooLargeError`, also where the body is incomplete.
    """
    plain = decode_body(body, coding, weight.decoded_limit(len(body)))
    if not plain:
        raise BodyTooLargeError("it cannot be opened, or becomes too much")
    return replace(write, body=plain)


async def build_entry(
    context: RequestContext,
    classification: WriteClassification,
    base: str,
    *,
    cause: str,
    in_doubt: bool,
) -> NewEntry:
    """Return the new entry for a write. `in_doubt`: an earlier attempt may have taken effect."""
    body = None if context.body is None else await context.body.read_all()
    return NewEntry(
        caller=context.caller.name,
        request=_request(context, body or b"", base),
        ordering_keys=classification.ordering_keys,
        recovery=classification.recovery,
        in_doubt=in_doubt,
        cause=cause,
        delay=INDEX_LAG if in_doubt and _needs_index(context.interaction, classification) else 0.0,
    )


def _needs_index(interaction: Interaction, classification: WriteClassification) -> bool:
    """Return whether the next attempt depends on the platform's search index.

    It does for a verification and for a condition that the write itself contains.
    """
    return classification.recovery is RecoveryMode.VERIFY or interaction.code not in BY_ID


def _request(context: RequestContext, body: bytes, base: str) -> QueuedRequest:
    field_lines = context.field_lines
    if context.body is not None and context.body.is_transformed:
        field_lines = remove_digest_fields(field_lines)
    target = RequestTarget(
        context.target.path,
        context.caller_context.link_translator.translate_query(context.target.query),
    )
    interaction = context.interaction
    return QueuedRequest(
        method=context.exchange.method,
        target_suffix=target.suffix,
        fields=tuple(_fields(field_lines)),
        body=body,
        credential=context.caller.credential,
        interaction=interaction.code,
        resource=interaction.resource,
        resource_id=interaction.resource_id,
        request_id=context.exchange.request_id,
        gateway_base=base,
    )


def _fields(field_lines: list[bytes]) -> FieldLines:
    """Return the field lines as fields, without Accept-Encoding.

    The response is stored, so that the codings the caller accepts do not matter.
    """
    fields = (line[:-2].partition(b": ") for line in field_lines)
    return tuple((name, value) for name, _, value in fields if name.lower() != b"accept-encoding")
