"""The search guard on the request path: asks for strictness, looks at the answer, warns or blocks.

`gateway.fhir.search_guard` decides which parameters were ignored; here the beginning of the answer
and the platform's CapabilityStatement are brought to it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from typing import Final

from gateway import errors
from gateway.errors import GatewayError
from gateway.fhir.conformity import media_type
from gateway.fhir.interaction import Interaction, query_names
from gateway.fhir.search_guard import capabilities, ignored, judged, self_parameters
from gateway.http.client.framing import Broken
from gateway.http.client.response import Answer
from gateway.http.content_coding import OPENED, beginning, opened
from gateway.http.headers import RequestHeader
from gateway.pipeline.platform_client import PlatformClient
from gateway.telemetry.logs import get_logger

_log = get_logger(__name__)

_STATEMENT_LIFETIME: Final = 3600.0
_STATEMENT_RETRY: Final = 60.0
_LARGEST_STATEMENT: Final = 16 * 1024 * 1024
# How long the first search waits for the first statement: long enough to be judged rightly.
_LONGEST_WAIT: Final = {True: 5.0, False: 1.0}
# How much a guard that blocks holds back until it has seen the `self` link.
_HELD_BACK: Final = 16 * 1024 * 1024
_PREFIX: Final = 64 * 1024
_STRICT: Final = b"Prefer: handling=strict\r\n"


class Statement:
    """The platform's CapabilityStatement, fetched when first needed and renewed every hour."""

    def __init__(self, client: PlatformClient, credential: str, clock: Callable[[], float]) -> None:
        self._client = client
        self._credential = credential
        self._clock = clock
        self._parameters: Mapping[str, frozenset[str]] | None = None
        self._due = clock()
        self._task: asyncio.Task[None] | None = None

    def parameters(self, resource: str) -> frozenset[str] | None:
        """The search parameters of a type, None while they are not known. Does not wait."""
        if self._task is None and self._clock() >= self._due:
            self._task = asyncio.get_running_loop().create_task(self._renew())
        return None if self._parameters is None else self._parameters.get(resource)

    async def first(self, longest_wait: float) -> None:
        """Wait for the first statement, at most so many seconds."""
        if self._parameters is None and self._task is not None:
            await asyncio.wait((self._task,), timeout=longest_wait)

    async def close(self) -> None:
        """End a fetch that is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _renew(self) -> None:
        try:
            self._parameters = capabilities(await self._fetch())
            self._due = self._clock() + _STATEMENT_LIFETIME
        except (GatewayError, Broken, ValueError) as error:
            why = error if isinstance(error, GatewayError) else "the platform's answer holds none"
            reason = error.reason if isinstance(error, GatewayError) else errors.UPSTREAM_NON_FHIR
            _log.warning(
                "no CapabilityStatement for the search guard: %s",
                why,
                reason=reason.code,
                credential=self._credential,
            )
            self._due = self._clock() + _STATEMENT_RETRY
        finally:
            self._task = None

    async def _fetch(self) -> bytes:
        answer = await self._client.get("/metadata", self._credential, str(uuid.uuid4()))
        try:
            if answer.status != 200:
                raise ValueError("status")
            await answer.prefetch(_LARGEST_STATEMENT)
            return await _statement(answer) if answer.complete else b""
        finally:
            answer.close()


class SearchGuard:
    """Judges the answers to searches. `on_ignored` is told how many parameters were ignored."""

    def __init__(
        self, statement: Statement, *, block: bool, on_ignored: Callable[[int], None]
    ) -> None:
        self._statement = statement
        self._block = block
        self._on_ignored = on_ignored

    def lines(self, header: RequestHeader) -> list[bytes]:
        """Fields to add to a search: one that may be blocked is also to be handled strictly.

        Unless the caller chose. A guard that only warns changes nothing of what was asked.
        """
        chosen = "handling=" in (header.text(b"prefer") or "").lower()
        return [_STRICT] if self._block and not chosen else []

    async def judge(self, answer: Answer, interaction: Interaction, asked: str) -> bytes | None:
        """The value of X-Gateway-Warning, or None. `asked` is the query and the form of the search.

        Raises `GatewayError` search-parameter-ignored when the guard blocks.
        """
        names = judged(asked)
        if not names or answer.status != 200:
            return None
        kind = media_type(answer.content_type)
        xml = kind.endswith("xml")
        if not xml and not kind.endswith("json"):
            return None
        # The search has its answer by now: the statement never delays the platform's own work.
        capable = None
        if _is_any_of_type(names):
            capable = self._statement.parameters(interaction.resource)
            if capable is None:
                capable = await self._capable(interaction.resource)
        body = _plain(answer)
        if self._block and not answer.complete:
            body = await self._beginning(answer, body, xml=xml)
        unused = ignored(asked, names, body, capable, xml=xml)
        if not unused:
            return None
        self._on_ignored(len(unused))
        # Only names that look like parameters: a caller can write anything there.
        shown = ",".join(query_names("&".join(f"{name}=" for name in unused)))
        if self._block:
            raise GatewayError(
                errors.SEARCH_PARAMETER_IGNORED, hint=f"ignored={shown}", upstream_status=200
            )
        return f'search-parameter-ignored; names="{shown}"'.encode("ascii")

    async def _capable(self, resource: str) -> frozenset[str] | None:
        """The parameters of a type, once the first statement is there."""
        await self._statement.first(_LONGEST_WAIT[self._block])
        return self._statement.parameters(resource)

    async def _beginning(self, answer: Answer, body: bytes, *, xml: bool) -> bytes:
        """So much of the body as is needed, if that which is here is too little."""
        if self_parameters(body, xml=xml) is not None:
            return body
        await answer.prefetch(_HELD_BACK)
        return _plain(answer)


async def _statement(answer: Answer) -> bytes:
    body, coding = answer.prefetched, answer.content_coding
    if coding not in OPENED:
        return body
    return await asyncio.to_thread(opened, body, coding, _LARGEST_STATEMENT)


def _is_any_of_type(names: tuple[str, ...]) -> bool:
    """Whether one of the parameters is not for all types."""
    for name in names:  # noqa: SIM110 - a generator costs more than all the rest
        if not name.startswith("_"):
            return True
    return False


def _plain(answer: Answer) -> bytes:
    return beginning(answer.prefetched, answer.content_coding, _PREFIX)
