"""The `traceparent` field of W3C Trace Context."""

from __future__ import annotations

import pytest

from gateway.field_values import TraceContext, parse_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-01", 1),
        (f"00-{TRACE}-{SPAN}-00", 0),
        (f"00-{TRACE}-{SPAN}-ff", 3),
        (f"cc-{TRACE}-{SPAN}-03-what-comes-later", 3),
        (f"cc-{TRACE}-{SPAN}-01", 1),
    ],
)
def test_a_valid_field_is_read(text: str, flags: int) -> None:
    """Ids and known flags of all versions."""
    context = parse_traceparent(text)
    assert context == TraceContext(TRACE, SPAN, flags)
    assert context.is_sampled is bool(flags & 1)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_an_invalid_field_is_none(text: str | None) -> None:
    """Sections 3.2.2 and 4.3."""
    assert parse_traceparent(text) is None
