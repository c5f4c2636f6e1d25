"""The rows of django-oauth-toolkit."""

from __future__ import annotations

from tests.interop.sso.django_toolkit import DjangoToolkit
from tests.interop.sso.rows import ClientRows, SignInRows


class TestClients(ClientRows):
    """Clients without users."""

    server = DjangoToolkit


class TestSignIn(SignInRows):
    """Users of a browser."""

    server = DjangoToolkit
