"""Parser and serializer of FHIR JSON that retain the text of every number.

A FHIR decimal carries its precision (FHIR R5, datatypes 2.1.28.0.1): 1.10 is not 1.1. Python's
`json` parses both to the same float, so that numbers with a fraction or an exponent become a
`Number` here.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, Final, NoReturn

import orjson

JsonObject = dict[str, Any]

_MAX_INTEGER_DIGITS: Final = 18  # what orjson serializes without help


class Number(Decimal):
    """A number that is serialized exactly as it was parsed."""

    text: str

    def __new__(cls, text: str) -> Number:
        """Parse `text`, the number as it is in the document."""
        number = super().__new__(cls, text)
        number.text = text
        return number


def parse(body: bytes) -> JsonObject:
    """Parse one JSON object. Raises ValueError, whose text quotes nothing of the document."""
    try:
        document = json.loads(
            body.decode(),
            parse_float=Number,
            parse_int=_integer,
            parse_constant=_refuse_constant,
            object_pairs_hook=_object,
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at offset {error.pos}") from None
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except (ArithmeticError, RecursionError):
        raise ValueError("a number is out of range, or the nesting is too deep") from None
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    _prove_writable(document)
    return document


def render(document: object, *, pretty: bool = False) -> bytes:
    """Serialize a document. Numbers that were parsed retain their text, and members their order."""
    return orjson.dumps(document, default=_fragment, option=orjson.OPT_INDENT_2 if pretty else None)


def _prove_writable(document: JsonObject) -> None:
    # Lone surrogates and extreme nesting can be parsed but not serialized. The error must be raised
    # here, not when the document is sent later.
    try:
        render(document)
    except orjson.JSONEncodeError:
        raise ValueError("a lone surrogate, or the nesting is too deep") from None


def _integer(text: str) -> int | Number:
    plain = len(text) <= _MAX_INTEGER_DIGITS and text != "-0"
    return int(text) if plain else Number(text)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> JsonObject:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a property appears twice in one object")
    return document


def _fragment(value: object) -> orjson.Fragment:
    if isinstance(value, Number):
        return orjson.Fragment(value.text.encode())
    raise TypeError(f"{type(value).__name__} is not JSON")
