"""Work on input whose size a caller chooses is bounded by constants.

It is counted in executed lines of the gateway's own code, which do not depend on the machine.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from gateway.fhir import content_negotiation as negotiation
from gateway.fhir import interaction, search_parameters
from gateway.field_values import prefers_html
from gateway.http import content_coding, headers
from gateway.http.server.peer import Peer
from gateway.i18n import choose_language
from gateway.pipeline.callers import CallerRegistry

FIELD = 64 * 1024  # of all fields together
FORM = 1 << 20  # as much as is buffered
# A request's worth, and far from what 64 KiB of commas would take.
FEW = 30_000

FORMS = ("%41=&", "a=1&", "&", "%41%42=1&", "+=&", "a&", "=1&")


def count_steps(work: Callable[[], object]) -> int:
    """Return how many lines of Python ran, and how many calls C code made of them."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("part", FORMS)
def test_512_parameters_of_a_form_are_inspected(part: str) -> None:
    """That there are more is reported."""
    form = part * (FORM // len(part))
    assert count_steps(lambda: interaction.query_names(form)) < FEW
    assert interaction.query_names(form)[-1] == "?"
    assert count_steps(lambda: search_parameters.filtering_names(form)) < FEW
    assert search_parameters.filtering_names(form)[-1] == "?"
    assert (
        count_steps(
            lambda: search_parameters.ignored_parameters(
                form, ("a",), b"{}", search_parameters.SearchSupport(None)
            )
        )
        < FEW
    )


def test_an_overlong_parameter_name_is_not_decoded() -> None:
    """Names longer than any defined one need no inspection."""
    assert interaction.query_names("%41" * (FORM // 3) + "=") == ("?",)
    assert count_steps(lambda: search_parameters.filtering_names("%41" * (FORM // 3) + "=1")) < FEW


@pytest.mark.parametrize("item", [b",", b";", b"a,", b"gzip;", b"a;q=0.1,", b", ", b"!"])
def test_only_the_first_elements_of_a_list_field_are_inspected(item: bytes) -> None:
    value = item * (FIELD // len(item))
    text = value.decode()
    for work in (
        lambda: content_coding.accepts_coding(value, "gzip"),
        lambda: headers.has_own_via(value),
        lambda: negotiation.wants_xml("", text),
        lambda: prefers_html(text),
        lambda: choose_language(text, "en"),
    ):
        assert count_steps(work) < FEW


def test_64_trusted_proxies_are_inspected() -> None:
    callers = CallerRegistry((), (ipaddress.ip_network("10.0.0.0/8"),))
    chain = b",".join([b"192.0.2.1", *[b"10.0.0.1"] * 7000])
    header = headers.parse_request_fields([(b"X-Forwarded-For", chain)])
    assert count_steps(lambda: callers.resolve_peer(Peer("10.0.0.9"), header)) < FEW
    assert callers.resolve_peer(Peer("10.0.0.9"), header).address == "10.0.0.1"
    few = headers.parse_request_fields([(b"X-Forwarded-For", b"192.0.2.1" + b",10.0.0.1" * 63)])
    assert callers.resolve_peer(Peer("10.0.0.9"), few).address == "192.0.2.1"
