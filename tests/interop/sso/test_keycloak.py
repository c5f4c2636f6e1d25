"""The rows of Keycloak."""

from __future__ import annotations

from tests.interop.sso.keycloak import Keycloak
from tests.interop.sso.rows import ClientRows, SignInRows


class TestClients(ClientRows):
    """Clients without users."""

    server = Keycloak


class TestSignIn(SignInRows):
    """Users of a browser."""

    server = Keycloak
