"""The rows of LemonLDAP::NG."""

from __future__ import annotations

from tests.interop.sso.lemonldap import LemonLdap
from tests.interop.sso.rows import ClientRows, SignInRows


class TestClients(ClientRows):
    """Clients without users."""

    server = LemonLdap


class TestSignIn(SignInRows):
    """Users of a browser."""

    server = LemonLdap
