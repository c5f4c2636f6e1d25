"""Authentication of requests, which need exactly one valid bearer token (RFC 6750)."""

from __future__ import annotations

import random
from typing import Final

from aiohttp import web

from gateway.sandbox.events import EVENT, Counters
from gateway.sandbox.outcomes import FhirError, Issue
from gateway.sandbox.tokens import TokenAuthority, TokenError

_REALM: Final = 'Bearer realm="dhp-sandbox"'


class BearerGuard:
    """Checks the Authorization field. Rejects the share `reject` of valid tokens on purpose."""

    def __init__(
        self, tokens: TokenAuthority, counters: Counters, *, reject: float, rng: random.Random
    ) -> None:
        self._tokens = tokens
        self._counters = counters
        self._reject = reject
        self._rng = rng

    def check(self, request: web.Request) -> None:
        """Check a request. Raises FhirError 401, or 400 if the field is malformed or repeated."""
        event = request[EVENT]
        fields = request.headers.getall("Authorization", [])
        if not fields:
            event.note = "bearer token: none"
            raise self._refuse(401, "login", "a bearer token is needed", _REALM)
        scheme, _, token = fields[0].partition(" ")
        if len(fields) > 1 or scheme.lower() != "bearer" or not token.strip():
            event.note = "bearer token: malformed"
            raise self._refuse(
                400, "security", "one bearer token is needed", _error("invalid_request")
            )
        try:
            bearer = self._tokens.verify(token.strip())
        except TokenError as error:
            event.note = f"bearer token: refused ({error})"
            raise self._invalid(str(error)) from None
        event.note = (
            f"bearer token: yes (sub={bearer.subject}, expires in {bearer.expires_in:.0f} s)"
        )
        if self._reject and self._rng.random() < self._reject:
            event.note += ", refused on purpose"
            self._counters.faults += 1
            raise self._invalid("refused on purpose")

    def _invalid(self, description: str) -> FhirError:
        challenge = f'{_error("invalid_token")}, error_description="{description}"'
        return self._refuse(401, "security", f"the token was refused: {description}", challenge)

    def _refuse(self, status: int, code: str, text: str, challenge: str) -> FhirError:
        self._counters.rejected += 1
        return FhirError(status, Issue(code, text), headers=(("WWW-Authenticate", challenge),))


def _error(code: str) -> str:
    return f'{_REALM}, error="{code}"'
