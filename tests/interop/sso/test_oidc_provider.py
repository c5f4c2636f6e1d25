"""The rows of oidc-provider."""

from __future__ import annotations

from tests.interop.sso.oidc_provider import OidcProvider
from tests.interop.sso.rows import ClientRows, SignInRows


class TestClients(ClientRows):
    """Clients without users."""

    server = OidcProvider


class TestSignIn(SignInRows):
    """Users of a browser."""

    server = OidcProvider
