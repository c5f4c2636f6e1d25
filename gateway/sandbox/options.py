"""The options of a sandbox, and the faults that it simulates.

Vendors can test their software against these faults.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from gettext import gettext as _
from typing import Final, Literal

FailureMode = int | Literal["html", "reset"]
Side = Literal["sso", "platform"]

_SIDES: Final[tuple[Side, ...]] = ("sso", "platform")
_TOKEN_LIFETIME: Final = 3600
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s)?")


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults of one sandbox; the default is none.

    `failures` is how every request to a side fails, `delays` when its responses come. A failure is
    an HTTP status from 400 to 599, `html` (an HTML error page with status 502) or
    `reset` (the connection is reset without a response). Delays and the lifetime are in seconds.
    `reject_tokens` is the share, from 0 to 1, of valid tokens that the platform rejects with 401.
    """

    failures: Mapping[Side, FailureMode] = field(default_factory=dict)
    delays: Mapping[Side, float] = field(default_factory=dict)
    token_lifetime: int = _TOKEN_LIFETIME
    reject_tokens: float = 0.0

    @classmethod
    def parse(
        cls,
        fail: Sequence[str] = (),
        slow: Sequence[str] = (),
        token_lifetime: float | None = None,
        reject_tokens: float = 0.0,
    ) -> Faults:
        """Parse options of the command line, such as `sso=503` or `platform=2s`.

        Raises ValueError with a message for the operator.
        """
        return cls(
            failures={side: _failure(side, mode) for side, mode in _pairs("--fail", fail).items()},
            delays={side: _delay(side, text) for side, text in _pairs("--slow", slow).items()},
            token_lifetime=_lifetime(token_lifetime),
            reject_tokens=_share(reject_tokens),
        )


def _pairs(option: str, texts: Sequence[str]) -> dict[Side, str]:
    pairs: dict[Side, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        side = next((side for side in _SIDES if side == name.strip()), None)
        if side is None or not equals:
            raise ValueError(_("{name}: write sso=… or platform=…").format(name=f"{option} {text}"))
        if side in pairs:
            raise ValueError(
                _("{name}: {side} is given twice").format(name=f"{option} {text}", side=side)
            )
        pairs[side] = value.strip()
    return pairs


def _failure(side: Side, mode: str) -> FailureMode:
    if mode == "html":
        return "html"
    if mode == "reset":
        return "reset"
    if re.fullmatch(r"[45]\d\d", mode, re.ASCII):
        return int(mode)
    raise ValueError(
        _("{name}: give a status from 400 to 599, html or reset").format(
            name=f"--fail {side}={mode}"
        )
    )


def _delay(side: Side, text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(
            _("{name}: give a duration such as 2s or 500ms").format(name=f"--slow {side}={text}")
        )
    return float(match[1]) / (1000 if match[2] == "ms" else 1)


def _lifetime(seconds: float | None) -> int:
    if seconds is None:
        return _TOKEN_LIFETIME
    if not math.isfinite(seconds) or seconds < 1 or seconds != int(seconds):
        raise ValueError(
            _("{name}: give whole seconds, at least 1").format(name=f"--token-lifetime {seconds:g}")
        )
    return int(seconds)


def _share(share: float) -> float:
    if not 0 <= share <= 1:
        raise ValueError(
            _("{name}: give a share from 0 to 1, such as 0.1").format(
                name=f"--reject-tokens {share:g}"
            )
        )
    return float(share)


HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """The port, the credentials and the behaviour of a sandbox. Durations are in seconds.

    `port` 0 selects any free one. `public_url` is the FHIR base URL in links, for an installation
    behind another name; by default it is the URL of the listener. The public client has no secret
    and may only use the authorization code grant, with PKCE. The refresh token of that grant is
    sent as a cookie; `refresh_token_in_body` also adds it to the JSON, as in RFC 6749.
    `gateway_url` is the origin of a gateway with a sign-in, and enables the example page, which
    names `gateway_audit`, the audit file of that gateway.

    The platform is a small copy of the national playground, including its pitfalls. With `lenient`
    it evaluates If-None-Exist and `ifNoneExist`, filters by every parameter, declares all that it
    supports, and compresses nothing without a request. Searches find a write only after
    `search_lag`.
    """

    port: int = 8090
    client_id: str = "hospital-demo"
    client_secret: str = field(default="sandbox-secret", repr=False)
    public_url: str | None = None
    faults: Faults = field(default_factory=Faults)
    public_client_id: str = "hospital-web"
    refresh_token_in_body: bool = False
    gateway_url: str | None = None
    gateway_audit: str | None = None
    lenient: bool = False
    search_lag: float = 0.0  # a tester expects to find a first write at once

    def __post_init__(self) -> None:
        if not 0 <= self.search_lag < math.inf:
            raise ValueError(
                _("{name}: give seconds, from 0").format(name=f"--search-lag {self.search_lag:g}")
            )
