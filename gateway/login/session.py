"""A person who signed in with a browser, and a sign-in that is under way.

The browser holds a random identifier of 256 bits. Stores know its SHA-256 only, so that what is
read there opens nothing; what they keep outside of this process is sealed with the identifier.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.oauth.store import StoreKey
from gateway.oauth.token import AccessToken
from gateway.secret import Secret

_IDENTIFIER_BYTES: Final = 32
# Long enough to find the password, short enough that what is left behind is soon worthless.
SIGN_IN_LIFETIME: Final = 600.0


def new_secret() -> str:
    """256 random bits as a text that may stand in a cookie and in a URL."""
    return secrets.token_urlsafe(_IDENTIFIER_BYTES)


def digest(*secret_parts: str) -> str:
    """What the store knows of a secret."""
    # What a browser shows may be anything, even what no UTF-8 is made of.
    return hashlib.sha256("\n".join(secret_parts).encode("utf-8", "surrogatepass")).hexdigest()


def store_key(*secret_parts: str) -> StoreKey:
    """Under which something is kept that only who shows these parts may have."""
    return StoreKey(digest(*secret_parts), Secret("\n".join(secret_parts)))


@dataclass(frozen=True, slots=True)
class RenewalGrant:
    """What brings the next access token: a refresh token of the body, or cookies of the SSO."""

    refresh_token: Secret | None = None
    cookies: Mapping[str, Secret] = field(default_factory=dict, repr=False)

    @property
    def is_possible(self) -> bool:
        """Whether there is anything to show to the SSO."""
        return self.refresh_token is not None or bool(self.cookies)


@dataclass(frozen=True, slots=True)
class SignedInUser:
    """Who signed in: the subject, a name to show, and digests by which the SSO may end sessions.

    `logout_marks` are those of the subject and of the SSO's own session (OpenID Connect
    Back-Channel Logout).
    """

    user: str
    name: str | None = None
    logout_marks: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Session:
    """A session as the store had it. Times are seconds of this process's monotonic clock.

    `identity` tells of which client, SSO and platform the tokens are. `is_ended` is what is known
    here; with a shared store another process may have ended it since it was read.
    """

    key: StoreKey
    identity: str
    person: SignedInUser
    started_at: float
    last_used_at: float
    token: AccessToken
    renewal: RenewalGrant
    is_ended: bool = False

    @property
    def user(self) -> str:
        """The person's subject."""
        return self.person.user

    @property
    def name(self) -> str | None:
        """The person's name, if the SSO told it."""
        return self.person.name

    def update_from(self, latest: Session) -> None:
        """Take over what a renewal brought, or that the session is over."""
        self.token, self.renewal = latest.token, latest.renewal
        self.is_ended = self.is_ended or latest.is_ended

    def __repr__(self) -> str:
        return f"Session({self.key.name[:8]})"


class UserCredential(str):
    """Stands in the place of a credential's name, and brings the session along."""

    session: Session

    def __new__(cls, session: Session) -> UserCredential:
        """`login` in records; no name of a session ever gets there."""
        made = super().__new__(cls, "login")
        made.session = session
        return made


@dataclass(frozen=True, slots=True)
class SignInState:
    """A sign-in under way: what the browser that began it must not be able to change."""

    verifier: Secret
    nonce: str | None
    return_to: str
