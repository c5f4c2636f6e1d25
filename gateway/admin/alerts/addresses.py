"""Addresses of the library Apprise, which is loaded here and nowhere else, when one is in use.

They hold passwords, often in the place of a host: nothing but the scheme is ever shown of one.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.phrases import Phrase
from gateway.secret import Secret
from gateway.telemetry.logs import silence_libraries

MISSING: Final = Phrase("needs the extra `notify`: pip install 'dhp-gateway[notify]'")
NOT_UNDERSTOOD: Final = Phrase("is no address that Apprise understands")
ADDRESS_HINT: Final = Phrase(
    "write it like mailtos://user:password@mail.clinic.uz?to=duty@clinic.uz; characters such as "
    "@ or / in a password are percent-encoded"
)
# The libraries that carry messages: they quote addresses, headers and answers.
_NOISY_LOGGERS: Final = ("apprise", "oauthlib", "requests_oauthlib", "urllib3")
_KINDS: Final = {"begun": "failure", "over": "success"}


class MissingExtraError(Exception):
    """Apprise is not installed."""


@dataclass(frozen=True, slots=True)
class AlertMessage:
    """What people are told; `kind` is `begun`, `over`, `daily` or `test`."""

    kind: str
    title: str
    body: str


@dataclass(frozen=True, slots=True)
class AlertAddress:
    """Who is told. `name` is for people: the setting and the scheme."""

    name: Phrase
    url: Secret
    _service: Any = field(repr=False, compare=False)

    def send(self, message: AlertMessage) -> bool:
        """Whether it was taken. Blocks for as long as the way there takes; raises nothing."""
        try:
            kind = _KINDS.get(message.kind, "info")
            return bool(
                self._service.notify(body=message.body, title=message.title, notify_type=kind)
            )
        except Exception:
            # Whatever a service's own code raises: its text may quote the address.
            return False

    def server(self) -> tuple[str, int] | None:
        """Host and port that messages go to, where the address itself names them."""
        service = self._service
        if host := getattr(service, "smtp_host", None):
            return str(host), int(service.port)
        # Elsewhere the place of the host may hold a token.
        if "host" not in service.template_tokens or hasattr(service, "notify_url"):
            return None
        return str(service.host), int(service.port or (443 if service.secure else 80))


def parse_address(name: Phrase, url: Secret) -> AlertAddress | None:
    """The address that a text means, None if it means none. Raises `MissingExtraError`.

    Opens no connection. The first call loads the library, which takes most of a second.
    """
    apprise = _import_apprise()
    # Nothing is kept on a disk, and no code is loaded from one.
    asset = apprise.AppriseAsset(
        app_id="DHP Gateway", app_desc="DHP Gateway", app_url="", storage_mode="memory"
    )
    service = apprise.Apprise.instantiate(url.reveal(), asset=asset)
    if service is None:
        return None
    return AlertAddress(
        Phrase("{name} ({scheme})", name=name, scheme=urlsplit(url.reveal()).scheme), url, service
    )


def _import_apprise() -> Any:
    try:
        library = importlib.import_module("apprise")
    except ImportError:
        raise MissingExtraError from None
    silence_libraries(*_NOISY_LOGGERS)
    return library
