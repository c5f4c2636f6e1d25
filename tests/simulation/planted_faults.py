"""Faults that can be planted into the gateway, to see whether the simulation finds them.

Each is a change of one piece of source text, which is compiled anew in place of the function. A
text that is not there any more raises, so that the table stays true.
"""

from __future__ import annotations

import inspect
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.simulation.substitutes import EPOCH

# isort: split
# What is above replaces the clocks, which `gateway` takes as it is imported.
from gateway.app import application, revision
from gateway.app.outbox_service import OutboxService
from gateway.audit import file_sink, hash_chain
from gateway.health import health, platform_judgement
from gateway.http.client import upstream_pool
from gateway.login import session_store, user_tokens
from gateway.oauth import token_endpoint, token_response, tokens
from gateway.oauth.token_store import tokens_at_hand
from gateway.outbox import attempt_result, delivery, intake, platform_sender
from gateway.outbox.store import outbox_store, queries, sqlite_database, transitions
from gateway.pipeline import handler, upstream


@dataclass(frozen=True)
class Fault:
    """A change of a function's text. `scenario` is the one in which it can show."""

    scenario: str
    function: Any
    old: str
    new: str

    def plant(self) -> None:
        """Change the function for the rest of the process."""
        function = inspect.unwrap(self.function)
        source = textwrap.dedent(inspect.getsource(function))
        if self.old not in source:
            raise ValueError(f"{function.__qualname__} has no {self.old!r} any more")
        # A function of its own line numbers, without the decorators of the one in place.
        start = source.index("async def" if source.lstrip().startswith(("@", "async")) else "def")
        start = min(start, source.index("def"))
        text = source[start:].replace(self.old, self.new, 1)
        names: dict[str, Any] = {}
        flags = "from __future__ import annotations\n"
        exec(compile(flags + text, "planted", "exec"), function.__globals__, names)  # noqa: S102
        function.__code__ = names[function.__name__].__code__


def _wall() -> float:
    return time.time() - EPOCH


@dataclass(frozen=True)
class _Replacement:
    """A change that is no change of a text."""

    scenario: str
    plant: Callable[[], None]


class _Several:
    """Several changes that make one fault."""

    def __init__(self, *faults: Fault) -> None:
        self.scenario = faults[0].scenario
        self._faults = faults

    def plant(self) -> None:
        """Make all of the changes."""
        for fault in self._faults:
            fault.plant()


def _use_wall_clock() -> None:
    application.tokens_at_hand = lambda _: tokens_at_hand(_wall)  # type: ignore[assignment]


def _flush_nothing() -> None:
    pragmas = tuple(
        pragma.replace("synchronous = FULL", "synchronous = OFF")
        for pragma in sqlite_database._PRAGMAS
    )
    sqlite_database._PRAGMAS = pragmas  # type: ignore[misc]


_T, _O, _C, _L = "tokens", "outbox", "changes", "login"
_ANY_KEY = (token_endpoint.TokenRequestQueue._admit, "if key not in self._active", "if True")
FAULTS: dict[str, Fault | _Several | _Replacement] = {
    # Each of both alone is caught by the other, but after a reload.
    "two token requests at a time": _Several(
        Fault(_T, tokens.Tokens._start_fetch, "if self._fetch_task is None:", "if True:"),
        Fault(_T, *_ANY_KEY),
    ),
    "a reload requests a token beside the settings before": Fault(_C, *_ANY_KEY),
    "a 401 discards the token in use, not the refused one": Fault(
        _T, tokens.Tokens._discard_rejected, "if self.current() != rejected or", "if"
    ),
    "the margin before the expiry has the wrong sign": Fault(
        _T, token_response.AccessToken.__init__, "self.expires_at - min(", "self.expires_at + min("
    ),
    "a token's life counts from its arrival": Fault(
        _T,
        token_response.TokenResponse.to_access_token,
        "received_at=self.requested_at",
        "received_at=now",
    ),
    "the expiry of tokens is of the wall clock": _Replacement(_T, _use_wall_clock),
    "a failed fetch is not repeated": Fault(
        _T, tokens.Tokens._finish_fetch, "self._schedule(pause, self._start_fetch)", "pass"
    ),
    "a refused token is not replaced": Fault(
        _T, upstream.TokenRetry.send, "if response.status == 401:", "if False:"
    ),
    "a create is sent again after a broken connection": Fault(
        _C, upstream.Upstream.send, "safe=outgoing.is_retryable", "safe=True"
    ),
    "a cancelled request keeps its connection": Fault(
        _T,
        upstream.Upstream._attempt,
        "self._pool.release(connection)\n        raise",
        "pass\n        raise",
    ),
    "two exchanges get the same connection": Fault(
        _T,
        upstream_pool.UpstreamPool.release,
        "self._idle.append(connection)",
        "self._idle.extend((connection, connection))",
    ),
    "the circuit stays open": Fault(
        _T, platform_judgement.PlatformJudgement._close, "self._open_until = None", "pass"
    ),
    "ready without a token": Fault(_T, health._token_state, "if not token.is_valid:", "if False:"),
    "commits are not flushed": _Replacement(_O, _flush_nothing),
    "an entry is acknowledged before it is committed": Fault(
        _O,
        intake.OutboxWriteQueue._enqueue,
        "entry = await self._store.enqueue(new_entry, confirm, shared=self._has_several_callers)",
        "import asyncio, types; asyncio.ensure_future(asyncio.shield(self._store.enqueue("
        "new_entry, confirm))); entry = types.SimpleNamespace(id='0')",
    ),
    "a write overtakes what is queued": Fault(
        _O,
        intake.OutboxWriteQueue._forward_or_enqueue,
        "if not self._store.is_known_empty():",
        "if False:",
    ),
    "entries are claimed out of order": Fault(
        _O, queries.select_ready, "entries_table.c.behind.is_(None), is_due", "is_due"
    ),
    "a lease that ended leaves no doubt": Fault(
        _O, transitions.expire_lease, '"doubt": True', '"doubt": False'
    ),
    "leases of dead processes are not recovered": Fault(
        _O,
        delivery.OutboxMaintenance.recover_leases,
        "if now - since >= LEASE_SECONDS or lease.owner in dead",
        "if False",
    ),
    "an unclear create is sent again": Fault(
        _O,
        attempt_result._decide_failure,
        "if failure.may_have_effect and entry.recovery is RecoveryMode.HOLD:",
        "if False:",
    ),
    "a verification that fails makes a write unclear": Fault(
        _O, platform_sender.EntrySender._search, " or has_failed(found.status)", ""
    ),
    "a verification that finds the resource is ignored": Fault(
        _O,
        attempt_result.decide_on_finding,
        "if finding is VerificationStatus.PRESENT:",
        "if finding is VerificationStatus.PRESENT and not entry:",
    ),
    # Each of both alone is caught by the other.
    "a 503 counts as delivered": _Several(
        Fault(
            _O,
            platform_sender.EntrySender._result,
            "if status in _BUSY_STATUSES:",
            "if status == 429:",
        ),
        Fault(_O, attempt_result.decide, "if 200 <= status < 300:", "if 200 <= status <= 503:"),
    ),
    "an attempt's doubt is forgotten": Fault(
        _O,
        attempt_result._decide_failure,
        "in_doubt=failure.may_have_effect",
        "in_doubt=False",
    ),
    "a queued write uses another credential": Fault(
        _O,
        platform_sender.EntrySender._tokens_of,
        "tokens = self._tokens.get(request.credential)",
        "tokens = next(iter(self._tokens.values()))",
    ),
    "a decision is not recorded": Fault(
        _O,
        outbox_store.OutboxStore.record_and_claim,
        "recorded = transitions.record_decisions(connection, owner, decisions, sealed, now)",
        "recorded = [True for _ in decisions]",
    ),
    # Each of both alone is caught by the other.
    "a session is renewed by two requests at a time": _Several(
        Fault(
            _L, user_tokens.SessionRenewals.start_renewal, "if state.task is not None:", "if False:"
        ),
        Fault(_L, user_tokens.SessionRenewals._renew, "if not renewed(latest):", "if True:"),
        Fault(_L, session_store.MemorySessionStore.acquire_lease, "in self._leased", "in ()"),
    ),
    "a session ends by an outage of the SSO": Fault(
        _L, user_tokens.SessionRenewals._failed, "if not error.is_grant_invalid:", "if False:"
    ),
    "a renewal uses the refresh token of before": Fault(
        _L,
        user_tokens.SessionRenewals._renew,
        "session.token, session.renewal = tokens.token, tokens.renewal",
        "session.token = tokens.token",
    ),
    "a record is lost at a rotation": Fault(
        _C,
        file_sink.FileSink._rotate_if_full,
        "self._size_limit = self._rotate_bytes\n",
        "self._size_limit = self._rotate_bytes\n    self._done += 1\n",
    ),
    "the chain begins anew after a restart": Fault(
        _O,
        file_sink.FileSink._load_position,
        "self._position = self._latest(found or ChainPosition())",
        "self._position = ChainPosition()",
    ),
    "a torn record is taken for the last one": Fault(
        _O, hash_chain._first_torn, "if has_gap(line):", "if False:"
    ),
    "an exchange that was aborted is not recorded": Fault(
        _C,
        handler.ExchangeAccounting.account,
        "if not exchange.is_audit_skipped:",
        "if not exchange.is_audit_skipped and exchange.outcome != 'failure':",
    ),
    "a reload ends the exchanges of before": Fault(
        _C,
        revision.Core.retire,
        "await self.route.active_uses.wait_idle()",
        "await asyncio.sleep(0)",
    ),
    "a stop leaves tasks": Fault(_O, OutboxService.stop, "task.cancel()", "pass"),
    "the audit is not flushed at the end": Fault(
        _C, application.Gateway._close_audit, "await audit.close(_AUDIT_FLUSH)", "0"
    ),
}

# By the file of ordinary tests that fails first, in the folder that a fault concerns.
FOUND_BY: dict[str, tuple[str, ...]] = {
    "tests/audit/test_chain_verification.py": ("the chain begins anew after a restart",),
    "tests/audit/test_file_sink.py": (
        "a record is lost at a rotation",
        "a torn record is taken for the last one",
    ),
    "tests/health/test_health.py": ("ready without a token",),
    "tests/health/test_platform_judgement.py": ("the circuit stays open",),
    "tests/lifecycle/test_audit.py": (
        "an exchange that was aborted is not recorded",
        "the audit is not flushed at the end",
    ),
    "tests/lifecycle/test_reload.py": (
        "the expiry of tokens is of the wall clock",
        "a reload ends the exchanges of before",
    ),
    "tests/login/test_renewal.py": (
        "a session is renewed by two requests at a time",
        "a session ends by an outage of the SSO",
        "a renewal uses the refresh token of before",
    ),
    "tests/oauth/test_handover.py": (
        "a reload requests a token beside the settings before",
        "the margin before the expiry has the wrong sign",
        "a failed fetch is not repeated",
    ),
    "tests/oauth/test_rejection.py": (
        "two token requests at a time",
        "a 401 discards the token in use, not the refused one",
    ),
    "tests/oauth/test_tokens.py": ("a token's life counts from its arrival",),
    "tests/outbox/path/test_async_status.py": (
        "an entry is acknowledged before it is committed",
        "an unclear create is sent again",
        "a 503 counts as delivered",
        "a decision is not recorded",
    ),
    "tests/outbox/path/test_collisions.py": ("entries are claimed out of order",),
    "tests/outbox/path/test_intake.py": ("a write overtakes what is queued",),
    "tests/outbox/path/test_lifecycle.py": ("a stop leaves tasks",),
    "tests/outbox/path/test_platform_sender.py": (
        "a verification that fails makes a write unclear",
        "a queued write uses another credential",
    ),
    "tests/outbox/store/test_outbox_store.py": ("a lease that ended leaves no doubt",),
    "tests/outbox/test_crash.py": ("commits are not flushed",),
    "tests/outbox/test_delivery.py": (
        "leases of dead processes are not recovered",
        "a verification that finds the resource is ignored",
        "an attempt's doubt is forgotten",
    ),
    "tests/pipeline/test_asserted_user.py": ("a refused token is not replaced",),
    "tests/pipeline/test_callers.py": ("a cancelled request keeps its connection",),
    "tests/pipeline/test_forced_fetches.py": ("two exchanges get the same connection",),
    "tests/pipeline/test_second_attempts.py": ("a create is sent again after a broken connection",),
}


def plant(name: str) -> None:
    """Plant a fault for the rest of this process."""
    FAULTS[name].plant()
