"""The rows of Glewlwyd."""

from __future__ import annotations

from tests.interop.sso.glewlwyd import Glewlwyd
from tests.interop.sso.rows import ClientRows, SignInRows


class TestClients(ClientRows):
    """Clients without users."""

    server = Glewlwyd


class TestSignIn(SignInRows):
    """Users of a browser."""

    server = Glewlwyd
