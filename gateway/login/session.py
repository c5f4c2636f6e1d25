"""The session of a user who signed in with a browser, and the state of a sign-in in progress.

The browser holds a random identifier of 256 bits. Stores contain only its SHA-256, so that their
content gives no access to a session. Data that is stored outside of this process is encrypted with
the identifier.
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
# Seconds. Users need time to look up a password; an abandoned sign-in should soon become useless.
SIGN_IN_LIFETIME: Final = 600.0


def new_secret() -> str:
    """Return 256 random bits as a text that is valid in a cookie and in a URL."""
    return secrets.token_urlsafe(_IDENTIFIER_BYTES)


def digest(*secret_parts: str) -> str:
    """Return the SHA-256 of a secret in hexadecimal, which identifies it in a store."""
    # The value is from the browser and may contain surrogates that UTF-8 cannot encode.
    return hashlib.sha256("\n".join(secret_parts).encode("utf-8", "surrogatepass")).hexdigest()


def store_key(*secret_parts: str) -> StoreKey:
    """Return the key of an entry that is accessible only with all `secret_parts`."""
    return StoreKey(digest(*secret_parts), Secret("\n".join(secret_parts)))


@dataclass(frozen=True, slots=True)
class RenewalGrant:
    """What a renewal sends to the SSO: the refresh token of the body, or the SSO's cookies."""

    refresh_token: Secret | None = None
    cookies: Mapping[str, Secret] = field(default_factory=dict, repr=False)

    @property
    def is_possible(self) -> bool:
        """Whether there is a refresh token or a cookie."""
        return self.refresh_token is not None or bool(self.cookies)


@dataclass(frozen=True, slots=True)
class SignedInUser:
    """The user of a session: the subject and a display name.

    `logout_marks` are digests of the subject and of the SSO's own session, by which the SSO can end
    sessions (OpenID Connect Back-Channel Logout).
    """

    user: str
    name: str | None = None
    logout_marks: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Session:
    """A session as it was read from the store. Times are of this process's monotonic clock.

    `identity` identifies client, SSO and platform of the tokens. `is_ended` is the knowledge of
    this process: in a shared store, another process may have ended the session since it was read.
    """

    key: StoreKey
    identity: str
    signed_in_user: SignedInUser
    started_at: float
    last_used_at: float
    token: AccessToken
    renewal: RenewalGrant
    is_ended: bool = False

    @property
    def user(self) -> str:
        """The user's subject."""
        return self.signed_in_user.user

    @property
    def name(self) -> str | None:
        """The user's name, None if the SSO did not state it."""
        return self.signed_in_user.name

    def update_from(self, latest: Session) -> None:
        """Copy the tokens of a newer version of the session, and whether it has ended."""
        self.token, self.renewal = latest.token, latest.renewal
        self.is_ended = self.is_ended or latest.is_ended

    def __repr__(self) -> str:
        return f"Session({self.key.name[:8]})"


class UserCredential(str):
    """A credential name that carries a session; its text is `login`."""

    session: Session

    def __new__(cls, session: Session) -> UserCredential:
        """Return a credential of the session. Records show `login` and never name a session."""
        credential = super().__new__(cls, "login")
        credential.session = session
        return credential


@dataclass(frozen=True, slots=True)
class SignInState:
    """The state of a sign-in in progress that the browser must not be able to change.

    `verifier` is the PKCE code verifier, `nonce` that of the ID token, `return_to` the target after
    the sign-in.
    """

    verifier: Secret
    nonce: str | None
    return_to: str
