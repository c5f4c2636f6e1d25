"""A Django project whose users sign in, and whose clients get tokens, by django-oauth-toolkit.

It runs in an environment of its own. Argument: a file of JSON {port, database, keys, clients,
lifetime, user, password}; SIGHUP reads it again. `keys` are PEM, of which the first signs;
`clients` are fields of the model `Application`, `lifetime` is that of access tokens in seconds.
Prints a line each time it is ready. What it knows is in the database, an SQLite file.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, ClassVar
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import django
from django.conf import settings

FILE = Path(sys.argv[1])
_CONTRIB = ("auth", "contenttypes", "sessions", "messages", "admin")
_MIDDLEWARE = (
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
)
_CONTEXT = (
    "django.template.context_processors.request",
    "django.contrib.auth.context_processors.auth",
    "django.contrib.messages.context_processors.messages",
)


def _provider(told: dict[str, Any]) -> dict[str, Any]:
    signing, *others = told["keys"]
    return {
        "OIDC_ENABLED": True,
        "OIDC_RSA_PRIVATE_KEY": signing,
        "OIDC_RSA_PRIVATE_KEYS_INACTIVE": others,
        "OIDC_RP_INITIATED_LOGOUT_ENABLED": True,
        "OAUTH2_VALIDATOR_CLASS": "__main__.Validator",
        "SCOPES": {each: each for each in ("openid", "profile", "fhir", "introspection")},
        "DEFAULT_SCOPES": ["fhir"],
        "ACCESS_TOKEN_EXPIRE_SECONDS": told["lifetime"],
        "REFRESH_TOKEN_REUSE_PROTECTION": True,
    }


TOLD = json.loads(FILE.read_text())
settings.configure(
    ROOT_URLCONF="__main__",
    SECRET_KEY="x" * 50,
    ALLOWED_HOSTS=["*"],
    USE_TZ=True,
    USE_X_FORWARDED_HOST=True,
    INSTALLED_APPS=[*(f"django.contrib.{each}" for each in _CONTRIB), "oauth2_provider"],
    MIDDLEWARE=_MIDDLEWARE,
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {"context_processors": _CONTEXT},
        }
    ],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": TOLD["database"],
            # A writer waits for another, as it does not where it begins by reading.
            "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 60},
        }
    },
    # The tables as they are at last, which takes less time.
    MIGRATION_MODULES=dict.fromkeys([*_CONTRIB, "oauth2_provider"]),
    # Nothing here is worth the third of a second that the default takes for each secret.
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    LOGIN_URL="/admin/login/",
    STATIC_URL="/static/",
    OAUTH2_PROVIDER=_provider(TOLD),
)
django.setup()

# Only with settings can these be imported.
from django.contrib import admin  # noqa: E402
from django.contrib.auth import get_user_model  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.urls import include, path  # noqa: E402
from oauth2_provider.models import Application  # noqa: E402
from oauth2_provider.oauth2_validators import OAuth2Validator  # noqa: E402
from oauth2_provider.settings import oauth2_settings  # noqa: E402

urlpatterns = [
    path("admin/", admin.site.urls),
    path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
]


class Validator(OAuth2Validator):  # type: ignore[misc]
    """Names the user in ID tokens, as the documentation of django-oauth-toolkit proposes."""

    oidc_claim_scope: ClassVar[dict[str, str]] = {
        **OAuth2Validator.oidc_claim_scope,
        "preferred_username": "profile",
    }

    def get_additional_claims(self, request: Any) -> dict[str, str]:
        return {"preferred_username": request.user.get_username()}


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def _register() -> None:
    told = json.loads(FILE.read_text())
    settings.OAUTH2_PROVIDER = _provider(told)
    oauth2_settings.reload()
    clients = {each["client_id"]: each for each in told["clients"]}
    Application.objects.exclude(client_id__in=clients).delete()
    for client_id, client in clients.items():
        Application.objects.update_or_create(client_id=client_id, defaults=client)
    print("ready", flush=True)  # noqa: T201 - to who started this


def _main() -> None:
    call_command("migrate", run_syncdb=True, verbosity=0)
    users = get_user_model().objects
    if not users.exists():
        users.create_superuser(TOLD["user"], password=TOLD["password"])
    signal.signal(signal.SIGHUP, lambda *_: _register())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    application = get_wsgi_application()
    with make_server("127.0.0.1", TOLD["port"], application, _Server, _Handler) as server:
        _register()
        server.serve_forever()


if __name__ == "__main__":
    _main()
