"""JSON in and out."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sandbox.fhir.json_codec import Number, parse, render

NUMBERS = st.from_regex(
    r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True
)


@given(st.lists(NUMBERS, max_size=5))
def test_every_number_keeps_its_text(numbers: list[str]) -> None:
    body = b'{"a":[' + ",".join(numbers).encode() + b"]}"
    assert render(parse(body)) == body


def test_numbers_are_decimals() -> None:
    value = parse(b'{"a":1.10}')["a"]
    assert isinstance(value, Number)
    assert value == Decimal("1.1")


@pytest.mark.parametrize("body", [b"", b"1", b"[1]", b'{"a":1,"a":2}', b'{"a":Infinity}', b"\xfe"])
def test_errors_show_nothing_of_the_document(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"^[A-Za-z0-9 :,.'()-]+$"):
        parse(body)
