"""Nothing that a caller sizes keeps the loop: what is looked at of a list is bounded by its number.

Work is counted in lines of the gateway's own code that run, which no busy machine changes.
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
from tests.doubles.platform import Platform
from tests.doubles.wire import ask, post

FIELD = 64 * 1024  # of all fields together
FORM = 1 << 20  # as much as is kept at hand
# A request's worth, and far from what 64 KiB of commas would take.
FEW = 30_000

FORMS = ("%41=&", "a=1&", "&", "%41%42=1&", "+=&", "a&", "=1&")


def search(form: bytes) -> bytes:
    """A search by a form."""
    kind = "Content-Type: application/x-www-form-urlencoded"
    return post("/fhir/Observation/_search", form, kind)


def steps(work: Callable[[], object]) -> int:
    """How many lines of Python ran, and calls that C made of them."""
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
def test_a_form_of_any_number_of_parameters(part: str) -> None:
    """Of half a million parameters 512 are looked at, and that there are more is told."""
    form = part * (FORM // len(part))
    assert steps(lambda: interaction.query_names(form)) < FEW
    assert interaction.query_names(form)[-1] == "?"
    assert steps(lambda: search_parameters.filtering_names(form)) < FEW
    assert search_parameters.filtering_names(form)[-1] == "?"
    assert (
        steps(
            lambda: search_parameters.ignored_parameters(
                form, ("a",), b"{}", search_parameters.SearchSupport(None)
            )
        )
        < FEW
    )


def test_a_name_of_any_length() -> None:
    """A name that is longer than any parameter's is not decoded, and none that could be judged."""
    assert interaction.query_names("%41" * (FORM // 3) + "=") == ("?",)
    assert steps(lambda: search_parameters.filtering_names("%41" * (FORM // 3) + "=1")) < FEW


@pytest.mark.parametrize("item", [b",", b";", b"a,", b"gzip;", b"a;q=0.1,", b", ", b"!"])
def test_a_list_of_any_length(item: bytes) -> None:
    """Of a field's elements and their parameters the first ones are looked at."""
    value = item * (FIELD // len(item))
    text = value.decode()
    for work in (
        lambda: content_coding.accepts_coding(value, "gzip"),
        lambda: headers.has_own_via(value),
        lambda: negotiation.wants_xml("", text),
        lambda: prefers_html(text),
        lambda: choose_language(text, "en"),
    ):
        assert steps(work) < FEW


def test_proxies_in_a_row() -> None:
    """Of any number of trusted proxies 64 are looked at."""
    callers = CallerRegistry((), (ipaddress.ip_network("10.0.0.0/8"),))
    chain = b",".join([b"192.0.2.1", *[b"10.0.0.1"] * 7000])
    header = headers.parse_request_fields([(b"X-Forwarded-For", chain)])
    assert steps(lambda: callers.resolve_peer(Peer("10.0.0.9"), header)) < FEW
    assert callers.resolve_peer(Peer("10.0.0.9"), header).address == "10.0.0.1"
    few = headers.parse_request_fields([(b"X-Forwarded-For", b"192.0.2.1" + b",10.0.0.1" * 63)])
    assert callers.resolve_peer(Peer("10.0.0.9"), few).address == "192.0.2.1"


async def test_what_cannot_be_looked_at_is_refused(start_gateway: Any, platform: Platform) -> None:
    """A caller that is limited to types hides no parameter behind many others."""
    allow = {"resources": ["Observation"]}
    caller = {"name": "his", "networks": ["127.0.0.0/8"], "allow": allow}
    async with start_gateway(callers=[caller]) as gateway:
        many = b"code=1&" * 600 + b"_include=Observation:subject"
        reply = await ask(gateway.address, search(many))
        assert (reply.status, reply.reason) == (403, "caller-forbidden")
        assert platform.seen == []
        some = b"&".join([b"code=1"] * 500)
        reply = await ask(gateway.address, search(some))
        assert reply.status == 200
