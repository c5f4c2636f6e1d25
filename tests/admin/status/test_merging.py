"""What several workers report, as one: added, or the worst of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from gateway.admin.judgement import HealthEvidence
from gateway.admin.status.merging import merge_status
from gateway.admin.status.recent_requests import MAX_SLOWEST

TOKEN = {
    "valid": True,
    "expires_in": 200,
    "rejected": False,
    "spare_secret": False,
    "fetching": False,
    "failure": None,
    "cause": None,
    "status": None,
    "oauth_error": None,
    "oauth_description": None,
    "next_attempt_in": 100,
}


def report(**members: Any) -> dict[str, Any]:
    """What a worker reports that has seen nothing."""
    return {
        "care": {"answer": "yes", "reason": "fine"},
        "tokens": {"default": TOKEN},
        "evidence": asdict(HealthEvidence(has_succeeded=True)),
        "platform": {
            "url": "http://p",
            "circuit": "closed",
            "connections": {"idle": 1},
            "missing_alias": None,
            "state": "answers",
            "reason": "answers",
            "since": "b",
            "probe": None,
        },
        "sso": {"url": "http://s", "failure": None},
        "outbox": None,
        "audit": {"available": True, "dropped": 0},
        "inflight": 1,
        "last_hour": {
            "requests": 3,
            "errors": 1,
            "refusals": 1,
            "minutes": [{"from": "a", "requests": 3, "errors": 1, "refusals": 1}],
        },
        "slowest": [],
        "errors": [],
        "callers": [],
        **members,
    }


NO = {"answer": "no", "reason": "circuit-open"}
DEGRADED = {"answer": "degraded", "reason": "renewal-fails"}


@pytest.mark.parametrize(
    ("reports", "draining", "expected"),
    [
        ([report(), report()], False, {"answer": "yes", "reason": "fine"}),
        ([report(), report(care=NO)], False, {"answer": "degraded", "reason": "circuit-open"}),
        ([report(care=NO), report(care=NO)], False, NO),
        ([report(), report(care=DEGRADED)], False, DEGRADED),
        ([report(), None], False, {"answer": "degraded", "reason": "workers-missing"}),
        ([report(care=DEGRADED), None], False, DEGRADED),
        ([report(care=NO), None], False, NO),
        ([None, None], False, {"answer": "no", "reason": "workers-missing"}),
        ([report(), report()], True, {"answer": "no", "reason": "shutting-down"}),
    ],
)
def test_care_goes_on_as_far_as_a_worker_serves(
    reports: list[dict[str, Any] | None], draining: bool, expected: dict[str, str]
) -> None:
    """`no` where no worker serves, `degraded` where some do not, with the worst one's reason."""
    assert merge_status(reports, draining=draining)["care"] == expected


def test_errors_that_are_few_in_each_worker_count_together() -> None:
    """Where all of some requests failed care is limited, however they fell on the workers."""
    counts = [{"requests": 2, "errors": 2}, {"requests": 0, "errors": 0}]
    minutes = [{"from": "a", "refusals": 0, **each} for each in counts]
    failing = report(last_hour={**counts[0], "refusals": 0, "minutes": minutes})
    merged = merge_status([failing, failing], draining=False)
    assert merged["care"] == {"answer": "degraded", "reason": "many-errors"}


def test_counts_add_up() -> None:
    """Requests, errors, connections and callers of all workers are one number."""
    callers = [{"name": "lab", "requests": 2, "errors": 1, "refusals": 1}]
    more = [*callers, {"name": "desk", "requests": 1, "errors": 0, "refusals": 0}]
    merged = merge_status([report(callers=callers), None, report(callers=more)], draining=False)
    assert merged["inflight"] == 2
    assert merged["last_hour"] == {
        "requests": 6,
        "errors": 2,
        "refusals": 2,
        "minutes": [{"from": "a", "requests": 6, "errors": 2, "refusals": 2}],
    }
    assert merged["platform"]["connections"] == {"idle": 2}
    assert merged["callers"] == [
        {"name": "desk", "requests": 1, "errors": 0, "refusals": 0},
        {"name": "lab", "requests": 4, "errors": 2, "refusals": 2},
    ]


def test_the_worst_token_is_shown() -> None:
    """A token is valid where each worker's is; the time is that of the first to run out."""
    failing = {**TOKEN, "expires_in": 20, "failure": "transient", "status": 500}
    refused = {**TOKEN, "valid": False, "expires_in": None, "failure": "refused", "status": 401}
    one = merge_status([report(), report(tokens={"default": failing})], draining=False)
    assert one["tokens"]["default"] == {**failing, "next_attempt_in": 100}
    sso = {"url": "http://s", "failure": "refused"}
    two = merge_status(
        [report(tokens={"default": refused}, sso=sso), report(tokens={"default": failing})],
        draining=False,
    )
    found = two["tokens"]["default"]
    assert (found["valid"], found["failure"], found["status"]) == (False, "refused", 401)
    assert found["expires_in"] == 20
    assert two["sso"]["failure"] == "refused"


def test_reasons_and_slowest_are_joined() -> None:
    """A reason counts over all workers with its last time; of the slowest the slowest remain."""

    def seen(at: str, status: int) -> dict[str, Any]:
        return {
            "reason": "internal",
            "last_at": at,
            "last_status": status,
            "last_hour": 1,
            "since_start": 2,
        }

    slow = [{"duration_ms": number} for number in range(MAX_SLOWEST)]
    merged = merge_status(
        [
            report(errors=[seen("2026-01-01T00:00:02Z", 500)], slowest=slow),
            report(errors=[seen("2026-01-01T00:00:01Z", 502)], slowest=slow),
        ],
        draining=False,
    )
    assert merged["errors"] == [
        {**seen("2026-01-01T00:00:02Z", 500), "last_hour": 2, "since_start": 4}
    ]
    assert [each["duration_ms"] for each in merged["slowest"]][:4] == [9, 9, 8, 8]
    assert len(merged["slowest"]) == MAX_SLOWEST


def test_the_outbox_is_one_however_many_look_at_it() -> None:
    """Its entries are not counted once for each worker."""
    outbox = {"entries": {"waiting": 2}, "oldest_seconds": 5}
    merged = merge_status([report(outbox=outbox), report(outbox=outbox)], draining=False)
    assert merged["outbox"] == outbox
    assert merge_status([report()], draining=False)["outbox"] is None


def test_what_each_worker_knows_of_the_platform_is_judged_together() -> None:
    """Five failures in each of two workers are ten; the first to see it says since when."""
    evidence = asdict(
        HealthEvidence(
            since_good={"platform-fails": 5}, bad_since=1.0, kinds=1, now=2.0, has_succeeded=True
        )
    )
    doubtful = {"state": "doubtful", "reason": "many-errors", "since": "c", "probe": None}
    failing = {**doubtful, "state": "fails", "probe": {"found": "answers", "at": "a"}}
    workers = [
        report(evidence=evidence, platform={**report()["platform"], **each})
        for each in (doubtful, failing)
    ]
    merged = merge_status(workers, draining=False)
    assert merged["care"] == {"answer": "no", "reason": "platform-fails"}
    platform = merged["platform"]
    assert (platform["state"], platform["reason"]) == ("fails", "platform-fails")
    assert (platform["since"], platform["probe"]) == ("c", {"found": "answers", "at": "a"})


def test_an_alias_that_one_worker_misses_is_missing() -> None:
    """Links go through any of them."""
    platform = {**report()["platform"], "missing_alias": "https://a.uz/r5"}
    merged = merge_status([report(), report(platform=platform)], draining=False)
    assert merged["platform"]["missing_alias"] == "https://a.uz/r5"


def test_what_one_worker_met_before_another_got_an_answer_is_over() -> None:
    """A good answer to any caller ends what was bad before it."""
    bad = HealthEvidence(since_good={"platform-fails": 20}, bad_since=1.0, now=9.0)
    good = HealthEvidence(
        last_minute={"answers": 1}, last_success_at=5.0, has_succeeded=True, now=9.0
    )
    workers = [report(evidence=asdict(each)) for each in (bad, good)]
    assert merge_status(workers, draining=False)["care"] == {"answer": "yes", "reason": "fine"}
