"""The rows of Better Auth."""

from __future__ import annotations

from tests.interop.sso.better_auth import BetterAuth
from tests.interop.sso.rows import ClientRows, SignInRows


class TestClients(ClientRows):
    """Clients without users."""

    server = BetterAuth


class TestSignIn(SignInRows):
    """Users of a browser."""

    server = BetterAuth
