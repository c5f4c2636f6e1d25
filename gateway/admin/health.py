"""Whether this process is ready for requests: the checks behind `/readyz`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


def _outbox_not_enabled() -> bool | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """The checks of `/readyz`; the callables are called anew for every report.

    `tokens` returns for every credential in use whether it has a valid token. `is_circuit_open`,
    `is_platform_failing` (see `gateway.admin.judgement`) and `is_draining` (a shutdown is in
    progress) each make the process not ready. `outbox` returns whether the outbox is available,
    None where it is not enabled. An unavailable outbox is reported as failing but does not make the
    process not ready, because all other requests are still served.
    """

    tokens: Callable[[], Mapping[str, bool]]
    is_circuit_open: Callable[[], bool]
    is_draining: Callable[[], bool]
    is_platform_failing: Callable[[], bool] = bool
    outbox: Callable[[], bool | None] = _outbox_not_enabled

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Return whether the gateway is ready, and the JSON body that names the failing checks."""
        checks = {f"token:{name}": valid for name, valid in self.tokens().items()}
        checks["circuit"] = not self.is_circuit_open()
        checks["platform"] = not self.is_platform_failing()
        checks["shutdown"] = not self.is_draining()
        ready = all(checks.values())
        outbox = self.outbox()
        if outbox is not None:
            checks["outbox"] = outbox
        failing = [check for check, passed in checks.items() if not passed]
        return ready, {
            "ready": ready,
            "failing": failing,
            "checks": {check: "ok" if passed else "failed" for check, passed in checks.items()},
        }
