"""Every Prometheus metric of the gateway. No other module defines one.

Labels come from closed sets only: configured names, FHIR interactions and types, reasons, status
codes. The counters of every request are in `gateway.telemetry.request_counters`. Values that change
with every request but matter only to a scrape (requests in flight, connections, the circuit) are
read during the scrape.

The handler calls `record_exchange`, `Upstream` and `TokenRetry` call `count_retry`, `Tokens` the
three `on_…` methods, the audit trail `count_audit_records`, the application the rest.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway import __version__
from gateway.telemetry.request_counters import DURATION_BUCKETS, RequestCounters

TOKEN_OUTCOMES: Final = ("ok", "refused", "throttled", "transient")
AUDIT_OUTCOMES: Final = ("written", "dropped")
RELOAD_OUTCOMES: Final = ("ok", "failed")
# Outcomes of alert messages: `failed` is retried, `dropped` is not.
_MESSAGE_OUTCOMES: Final = ("sent", "failed", "dropped")
CONNECTION_STATES: Final = ("idle", "active", "connecting")

# Certificates whose expiry is reported. `…-ca` are trust roots from the settings; `platform` is the
# certificate that the platform presents.
_CERTIFICATES: Final = (
    "listener",
    "caller-ca",
    "platform",
    "platform-ca",
    "platform-client",
    "sso-ca",
    "syslog-ca",
    "syslog-client",
    "audit-fhir-ca",
)

# Causes of a retry of an upstream request:
#   connect  no connection could be made, nothing was delivered
#   reused   a reused connection was closed before any byte of a response
#   broken   a new connection broke before any byte of a response, and the method is safe
#   status   the platform responded 502, 503 or 504, and the method is safe
#   token    the platform responded 401, and there is a new token
#   other    anything else
_RETRY_CAUSES: Final = ("connect", "reused", "broken", "status", "token", "other")

# Credentials that the token metrics name, at most. A thousand would have 16,000 buckets.
MAX_NAMED_CREDENTIALS: Final = 50
# The label of all others together. No name in the settings has parentheses.
OTHER_CREDENTIALS: Final = "(others)"


class Metrics:
    """The gateway's metrics in one registry; safe to update from any thread.

    With up to `MAX_NAMED_CREDENTIALS` credentials each has token metrics of its own. Of more, those
    have them whose last token request failed, and those without a token; the durations of token
    requests, 18 series, are those of all.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._wall_clock = wall_clock
        self.registry = CollectorRegistry() if registry is None else registry
        # Expiry of the token (Unix time) and number of waiting requests of each credential.
        self._expiries: dict[str, float] = {}
        self._waiters: dict[str, int] = {}
        self._has_many_credentials = False
        # Whether the last token request of each credential failed that has counters of its own.
        self._named: dict[str, bool] = {}
        # What a scrape asks: whether requests can succeed, and the reason; the expiry of
        # `_CERTIFICATES` (Unix time); the state of the outbox.
        self.usability: Callable[[], tuple[bool, str]] | None = None
        self._outbox_states: tuple[str, ...] = ()
        self._outbox_report: Callable[[], Mapping[str, Any]] = dict
        self.certificate_expiries: Callable[[], Mapping[str, float]] = dict
        self._inflight = self._gauge("dhp_gateway_inflight_requests", "Requests being served.")
        self._define_upstream()
        self._define_tokens()
        self._define_own_state()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        # Counters of every exchange, in one update, and of the links in every body.
        self._tally = RequestCounters()
        self.record_exchange = self._tally.record_exchange
        self.record_links = self._tally.record_links
        self.unforwarded_fields = self._tally.unforwarded_fields
        self.registry.register(self._tally)

    def count_retry(self, cause: str) -> None:
        """Count a retry of an upstream request. `cause` is one of `_RETRY_CAUSES`."""
        self._retries.labels(cause if cause in _RETRY_CAUSES else "other").inc()

    def declare_credentials(self, credentials: Iterable[str]) -> None:
        """Create the series of these credentials before any event.

        The gauges of other credentials are removed: a token that is no longer used must not look
        missing.
        """
        used = list(credentials)
        self._expiries = {name: self._expiries.get(name, 0.0) for name in used}
        self._waiters = {name: self._waiters.get(name, 0) for name in used}
        self._has_many_credentials = len(used) > MAX_NAMED_CREDENTIALS
        self._named = {name: self._named[name] for name in used if name in self._named}
        for credential in [OTHER_CREDENTIALS] if self._has_many_credentials else used:
            self._create_token_requests(credential)
            self._token_durations.labels(credential)

    def _create_token_requests(self, credential: str) -> None:
        for outcome in TOKEN_OUTCOMES:
            self._token_requests.labels(credential, outcome)

    def _credential_label(self, credential: str, *, failed: bool) -> str:
        """Return the label under which a token request is counted."""
        if credential not in self._named:
            if self._has_many_credentials and not (failed and self._can_name_another()):
                return OTHER_CREDENTIALS
            self._create_token_requests(credential)
        self._named[credential] = failed
        return credential

    def _can_name_another(self) -> bool:
        """Return whether one more credential may be named, instead of one that is well again."""
        if len(self._named) < MAX_NAMED_CREDENTIALS:
            return True
        well = next((name for name, is_failing in self._named.items() if not is_failing), None)
        if well is None:
            return False
        del self._named[well]
        for outcome in TOKEN_OUTCOMES:
            self._token_requests.remove(well, outcome)
        return True

    def declare_probe_signals(self, signals: Iterable[str]) -> None:
        """Create the series of these results of a probe before any event."""
        for signal in signals:
            self._probes.labels(signal)

    def on_token_requested(self, credential: str, outcome: str, seconds: float) -> None:
        """Count one token request. `outcome` is one of `TOKEN_OUTCOMES`, `seconds` its duration."""
        label = self._credential_label(credential, failed=outcome != "ok")
        self._token_requests.labels(label, outcome).inc()
        timed = OTHER_CREDENTIALS if self._has_many_credentials else credential
        self._token_durations.labels(timed).observe(seconds)

    def on_token_expiry(self, credential: str, timestamp: float) -> None:
        """Set the expiry of the credential's token as a Unix time in seconds; 0 means no token."""
        self._expiries[credential] = timestamp

    def on_waiters_changed(self, credential: str, waiters: int) -> None:
        """Set the number of requests that wait for the credential's token."""
        self._waiters[credential] = waiters

    def count_audit_records(self, outcome: str, n: int = 1) -> None:
        """Count audit records. `outcome` is one of `AUDIT_OUTCOMES`."""
        self._audit_records.labels(outcome).inc(n)

    def dropped_audit_records(self) -> int:
        """Return the number of audit records that were lost in this process."""
        samples = (sample for family in self._audit_records.collect() for sample in family.samples)
        lost = {"outcome": "dropped"}
        return int(
            sum(
                sample.value
                for sample in samples
                if sample.name[-6:] == "_total" and sample.labels == lost
            )
        )

    def count_messages(self, outcome: str, n: int = 1) -> None:
        """Count alert messages. `outcome` is one of `_MESSAGE_OUTCOMES`."""
        self._messages.labels(outcome).inc(n)

    def count_reload(self, outcome: str) -> None:
        """Count one reload of the settings. `outcome` is one of `RELOAD_OUTCOMES`."""
        self._config_reloads.labels(outcome).inc()

    def observe_inflight(self, count: Callable[[], int]) -> None:
        """Call `count` at every scrape for the number of requests in flight."""
        self._inflight.set_function(lambda: float(count()))

    def observe_connections(self, count: Callable[[], Mapping[str, int]]) -> None:
        """Call `count` at every scrape for the upstream connections by `CONNECTION_STATES`."""
        for state in CONNECTION_STATES:
            self._connections.labels(state).set_function(partial(_count_of, count, state))

    def observe_circuit(self, state: Callable[[], int]) -> None:
        """Call `state` at every scrape for the circuit: 0 closed, 1 half-open, 2 open."""
        self._circuit.set_function(lambda: float(state()))

    def count_probe(self, signal: str) -> None:
        """Count a probe. `signal` is one of `gateway.health.evidence`."""
        self._probes.labels(signal).inc()

    def observe_outbox(
        self, report: Callable[[], Mapping[str, Any]], states: Iterable[str], steps: Iterable[str]
    ) -> None:
        """Call `report` at every scrape for the state of the outbox.

        It returns `entries` (number by state), `oldest_seconds`, `stalled_seconds` and
        `available`. `states` and `steps` are all possible values.
        """
        self._outbox_states, self._outbox_report = tuple(states), report
        for step in steps:
            self._outbox_steps.labels(step)

    def count_outbox_step(self, step: str) -> None:
        """Count one step of an outbox entry."""
        self._outbox_steps.labels(step).inc()

    def render(self, accept: str | None = None) -> tuple[str, bytes]:
        """Return content type and body of a scrape, as OpenMetrics if `accept` prefers it."""
        encode, content_type = choose_encoder(accept or "")
        # Start times would become a separate useless series for each.
        return content_type, encode(_AtScrape(partial(_without_start_times, self.registry)))

    def _define_upstream(self) -> None:
        self._connections = self._gauge(
            "dhp_gateway_upstream_connections", "Connections to the platform.", ("state",)
        )
        self._retries = self._counter(
            "dhp_gateway_upstream_retries",
            "Requests sent to the platform once more.",
            ("cause",),
            _RETRY_CAUSES,
        )
        self._circuit = self._gauge(
            "dhp_gateway_circuit_state", "The circuit breaker: 0 closed, 1 half-open, 2 open."
        )
        self._probes = self._counter(
            "dhp_gateway_platform_probes",
            "Requests for the platform's metadata by which the gateway itself looked after it.",
            ("found",),
        )
        self.registry.register(_AtScrape(self._usability_family))
        for state in CONNECTION_STATES:
            self._connections.labels(state)

    def _define_tokens(self) -> None:
        self._token_requests = self._counter(
            "dhp_gateway_token_requests", "Token requests to the SSO.", ("credential", "outcome")
        )
        self._token_durations = Histogram(
            "dhp_gateway_token_request_duration_seconds",
            "Duration of token requests.",
            ("credential",),
            registry=self.registry,
            buckets=DURATION_BUCKETS,
        )
        self.registry.register(_AtScrape(self._token_families))

    def _define_own_state(self) -> None:
        self._audit_records = self._counter(
            "dhp_gateway_audit_records",
            "Audit records, by what became of them.",
            ("outcome",),
            AUDIT_OUTCOMES,
        )
        self.count_ignored_parameters: Callable[[int], None] = self._counter(
            "dhp_gateway_search_parameters_ignored",
            "Search parameters that the platform did not use.",
        ).inc
        self._config_reloads = self._counter(
            "dhp_gateway_config_reload", "Reloads of the settings.", ("outcome",), RELOAD_OUTCOMES
        )
        self._messages = self._counter(
            "dhp_gateway_alert_messages",
            "Messages of alerts.notify to people.",
            ("outcome",),
            _MESSAGE_OUTCOMES,
        )
        self._outbox_steps = self._counter(
            "dhp_gateway_outbox_steps", "What happened to queued writes.", ("step",)
        )
        self.registry.register(_AtScrape(self._outbox_families))
        self.registry.register(_AtScrape(self._certificate_family))
        build = self._gauge(
            "dhp_gateway_build_info", "What is running; always 1.", ("version", "python")
        )
        build.labels(__version__, platform.python_version()).set(1)

    def _token_families(self) -> Iterator[Metric]:
        """Yield expiry and waiters of the credentials that are named, and of the others together.

        Of the others, the token that expires first counts; 0 means that none has one.
        """
        expiry = GaugeMetricFamily(
            "dhp_gateway_token_expiry_timestamp_seconds",
            "When the credential's token expires; 0 while there is none.",
            labels=("credential",),
        )
        waiters = GaugeMetricFamily(
            "dhp_gateway_token_waiters", "Requests that wait for a token.", labels=("credential",)
        )
        named: Iterable[str] = self._expiries
        if self._has_many_credentials:
            now = self._wall_clock()
            lacking = [name for name, expires_at in self._expiries.items() if expires_at <= now]
            counted = [name for name in self._named if name in self._expiries]
            named = list(dict.fromkeys((*counted, *lacking)))[:MAX_NAMED_CREDENTIALS]
            others = self._expiries.keys() - named
            valid = (self._expiries[name] for name in others if self._expiries[name] > now)
            expiry.add_metric((OTHER_CREDENTIALS,), min(valid, default=0.0))
            waiting = sum(self._waiters.get(name, 0) for name in others)
            waiters.add_metric((OTHER_CREDENTIALS,), waiting)
        for name in named:
            expiry.add_metric((name,), self._expiries[name])
            waiters.add_metric((name,), self._waiters.get(name, 0))
        yield from (expiry, waiters)

    def _certificate_family(self) -> Iterator[Metric]:
        """Yield the expiry of certificates; one that is no longer used has no series."""
        family = GaugeMetricFamily(
            "dhp_gateway_certificate_expiry_timestamp_seconds",
            "When a certificate or a trust root of one's own expires.",
            labels=("certificate",),
        )
        found = self.certificate_expiries()
        for certificate in _CERTIFICATES:
            if certificate in found:
                family.add_metric((certificate,), found[certificate])
        yield family

    def _usability_family(self) -> Iterator[Metric]:
        """Yield whether the platform is usable: one series, labelled with the current reason."""
        family = GaugeMetricFamily(
            "dhp_gateway_platform_usable",
            "1 while requests of this gateway can succeed as far as is known, 0 while not.",
            labels=("reason",),
        )
        if self.usability is not None:
            usable, reason = self.usability()
            family.add_metric((reason,), float(usable))
        yield family

    def _outbox_families(self) -> Iterator[Metric]:
        """Yield the state of the outbox; without an outbox there are no series."""
        entries = GaugeMetricFamily(
            "dhp_gateway_outbox_entries", "Queued writes, by where they are.", labels=("state",)
        )
        oldest = GaugeMetricFamily(
            "dhp_gateway_outbox_oldest_seconds",
            "How long the oldest write that is not delivered has waited; 0 when there is none.",
        )
        available = GaugeMetricFamily(
            "dhp_gateway_outbox_available", "1 while the outbox can be reached, else 0."
        )
        stalled = GaugeMetricFamily(
            "dhp_gateway_outbox_stalled_seconds",
            "How long no write has been delivered that could be; 0 while there is none.",
        )
        found = self._outbox_report()
        for state in self._outbox_states:
            entries.add_metric((state,), found["entries"].get(state, 0))
        if self._outbox_states:
            oldest.add_metric((), found["oldest_seconds"] or 0.0)
            available.add_metric((), float(found.get("available", True)))
            stalled.add_metric((), found.get("stalled_seconds", 0.0))
        yield from (entries, oldest, available, stalled)

    def _counter(
        self, name: str, text: str, labels: tuple[str, ...] = (), values: Iterable[str] = ()
    ) -> Counter:
        """Define a counter. Create its series for the values of its label before any event."""
        counter = Counter(name, text, labels, registry=self.registry)
        for value in values:
            counter.labels(value)
        return counter

    def _gauge(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)


def _count_of(count: Callable[[], Mapping[str, int]], state: str) -> float:
    return float(count().get(state, 0))


class _AtScrape(Collector):
    """Families that a function makes at each scrape."""

    def __init__(self, families: Callable[[], Iterable[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families()


def _without_start_times(registry: CollectorRegistry) -> Iterator[Metric]:
    """Yield the families of a registry without their `_created` samples."""
    for family in registry.collect():
        family.samples = [
            sample for sample in family.samples if not sample.name.endswith("_created")
        ]
        yield family
