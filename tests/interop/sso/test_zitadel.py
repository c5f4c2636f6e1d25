"""The rows of zitadel/oidc."""

from __future__ import annotations

from tests.interop.sso.rows import ClientRows, SignInRows
from tests.interop.sso.zitadel import Zitadel


class TestClients(ClientRows):
    """Clients without users."""

    server = Zitadel


class TestSignIn(SignInRows):
    """Users of a browser."""

    server = Zitadel
