"""Merges the status facts of several workers: counts are added, of states the worst is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from gateway.admin.judgement import HealthEvidence, PlatformHealth, evaluate_health, merge_evidence
from gateway.admin.status.recent_requests import MAX_SLOWEST, RECENT, many_errors
from gateway.admin.status.verdict import SERVICE_STATES, service_status

_CIRCUITS: Final = ("closed", "half-open", "open")
_FAILURES: Final = (None, "transient", "throttled", "refused")
_OF_A_FAILURE: Final = ("failure", "cause", "status", "oauth_error", "oauth_description")

StatusFacts = dict[str, Any]


def merge_status(reports: Sequence[StatusFacts | None], *, draining: bool) -> StatusFacts:
    """Return one report for those of all workers; None stands for one that does not respond.

    If no worker responds, the result has only `care`.
    """
    present = [report for report in reports if report is not None]
    process_status = _merge_service_status(reports, present, draining=draining)
    if not present:
        return {"care": process_status}
    evidence = merge_evidence(HealthEvidence(**report["evidence"]) for report in present)
    health = evaluate_health(evidence)
    return {
        "care": service_status(process_status, health, asdict(evidence)),
        "tokens": _tokens([report["tokens"] for report in present]),
        "platform": _platform([report["platform"] for report in present], health),
        "sso": {
            **present[0]["sso"],
            "failure": _worst(_FAILURES, (report["sso"]["failure"] for report in present)),
        },
        "outbox": _outbox([report["outbox"] for report in present]),
        "audit": {
            "available": all(report["audit"]["available"] for report in present),
            "dropped": sum(report["audit"]["dropped"] for report in present),
        },
        "inflight": sum(report["inflight"] for report in present),
        "last_hour": _hour([report["last_hour"] for report in present]),
        "slowest": _slowest([request for report in present for request in report["slowest"]]),
        "errors": _errors([error for report in present for error in report["errors"]]),
        "callers": _callers([caller for report in present for caller in report["callers"]]),
    }


def _worst(order: Sequence[Any], found: Iterable[Any]) -> Any:
    return max(found, key=order.index)


def _merge_service_status(
    reports: Sequence[StatusFacts | None], present: Sequence[StatusFacts], *, draining: bool
) -> dict[str, str]:
    """Return `no` if no worker serves and `degraded` if some do not, with the worst reason."""
    if draining:
        return {"answer": "no", "reason": "shutting-down"}
    if not present:
        return {"answer": "no", "reason": "workers-missing"}
    verdicts = [report["care"] for report in present]
    worst: dict[str, str] = max(
        verdicts, key=lambda verdict: SERVICE_STATES.index(verdict["answer"])
    )
    missing = len(present) < len(reports)
    if worst["answer"] == "yes":
        if _many_errors(present):
            return {"answer": "degraded", "reason": "many-errors"}
        return {"answer": "degraded", "reason": "workers-missing"} if missing else dict(worst)
    all_stopped = all(verdict["answer"] == "no" for verdict in verdicts)
    return {"answer": "no" if all_stopped else "degraded", "reason": worst["reason"]}


def _many_errors(present: Sequence[StatusFacts]) -> bool:
    """Return whether all together have many errors; one alone may have too few requests."""
    minutes = _hour([report["last_hour"] for report in present])["minutes"][-RECENT:]
    return many_errors(
        sum(minute["requests"] for minute in minutes), sum(minute["errors"] for minute in minutes)
    )


def _tokens(sources: Sequence[Mapping[str, StatusFacts]]) -> dict[str, StatusFacts]:
    names = dict.fromkeys(name for source in sources for name in source)
    return {name: _token([source[name] for source in sources if name in source]) for name in names}


def _token(states: Sequence[StatusFacts]) -> StatusFacts:
    worst = max(states, key=lambda state: _FAILURES.index(state["failure"]))
    return {
        "valid": all(state["valid"] for state in states),
        "expires_in": _minimum(
            state["expires_in"] for state in states if not _is_token_missing(state)
        ),
        "rejected": any(state["rejected"] for state in states),
        "spare_secret": any(state["spare_secret"] for state in states),
        "fetching": any(state["fetching"] for state in states),
        **{key: worst[key] for key in _OF_A_FAILURE},
        "next_attempt_in": _minimum(state["next_attempt_in"] for state in states),
    }


def _is_token_missing(state: StatusFacts) -> bool:
    return state["expires_in"] is None


def _minimum(found: Iterable[int | None]) -> int | None:
    return min((number for number in found if number is not None), default=None)


def _platform(sources: Sequence[StatusFacts], health: PlatformHealth) -> StatusFacts:
    connections: dict[str, int] = {}
    for source in sources:
        for state, count in source["connections"].items():
            connections[state] = connections.get(state, 0) + count
    return {
        "url": sources[0]["url"],
        "circuit": _worst(_CIRCUITS, (source["circuit"] for source in sources)),
        "connections": connections,
        "missing_alias": next(
            filter(None, (source.get("missing_alias") for source in sources)), None
        ),
        "state": health.state,
        "reason": health.platform,
        "since": _since(sources, health),
        "probe": _newest(source["probe"] for source in sources),
    }


def _since(sources: Sequence[StatusFacts], health: PlatformHealth) -> str:
    """Return the earliest `since` of workers in the merged state, else the latest of all."""
    same: list[str] = [source["since"] for source in sources if source["state"] == health.state]
    return min(same) if same else max(source["since"] for source in sources)


def _newest(probes: Iterable[StatusFacts | None]) -> StatusFacts | None:
    return max((probe for probe in probes if probe), key=lambda probe: probe["at"], default=None)


def _outbox(sources: Sequence[StatusFacts | None]) -> StatusFacts | None:
    """Return the report with most entries; `available` only if it is for all workers.

    All workers report the same queue, so that the report with most entries is the newest one or as
    good.
    """
    present = [source for source in sources if source is not None]
    fullest = max(present, key=lambda report: sum(report["entries"].values()), default=None)
    if all(report.get("available", True) for report in present):
        return fullest
    return {**(fullest or {}), "available": False}


def _hour(sources: Sequence[StatusFacts]) -> StatusFacts:
    """Return the sums minute by minute, which begin at the same times: workers share a clock."""
    minutes = [
        {
            "from": same[0]["from"],
            "requests": sum(minute["requests"] for minute in same),
            "errors": sum(minute["errors"] for minute in same),
            "refusals": sum(minute["refusals"] for minute in same),
        }
        for same in zip(*(source["minutes"] for source in sources), strict=False)
    ]
    return {
        "requests": sum(source["requests"] for source in sources),
        "errors": sum(source["errors"] for source in sources),
        "refusals": sum(source["refusals"] for source in sources),
        "minutes": minutes,
    }


def _slowest(found: Iterable[StatusFacts]) -> list[StatusFacts]:
    return sorted(found, key=lambda request: -request["duration_ms"])[:MAX_SLOWEST]


def _errors(found: Iterable[StatusFacts]) -> list[StatusFacts]:
    merged = _merge_by_key(found, "reason", _later)
    return sorted(merged, key=lambda error: error["last_at"], reverse=True)


def _later(one: StatusFacts, other: StatusFacts) -> StatusFacts:
    last = max(one, other, key=lambda error: error["last_at"])
    return {
        **last,
        "last_hour": one["last_hour"] + other["last_hour"],
        "since_start": one["since_start"] + other["since_start"],
    }


def _callers(found: Iterable[StatusFacts]) -> list[StatusFacts]:
    merged = _merge_by_key(found, "name", _merge_caller)
    return sorted(merged, key=lambda caller: caller["name"])


def _merge_caller(one: StatusFacts, other: StatusFacts) -> StatusFacts:
    return {
        "name": one["name"],
        "requests": one["requests"] + other["requests"],
        "errors": one["errors"] + other["errors"],
        "refusals": one["refusals"] + other["refusals"],
    }


def _merge_by_key(
    found: Iterable[StatusFacts], key: str, join: Callable[[StatusFacts, StatusFacts], StatusFacts]
) -> list[StatusFacts]:
    by_key: dict[str, StatusFacts] = {}
    for item in found:
        known = by_key.get(item[key])
        by_key[item[key]] = item if known is None else join(known, item)
    return list(by_key.values())
