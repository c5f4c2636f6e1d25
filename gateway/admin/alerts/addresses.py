"""Addresses of alert messages for the library Apprise.

Only this module imports Apprise, and only when an address is used. Addresses contain passwords,
often in place of the host, so that only the scheme of an address is ever shown.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.i18n import Message
from gateway.secret import Secret
from gateway.telemetry.logs import silence_libraries

MISSING: Final = Message("needs the extra `notify`: pip install 'dhp-gateway[notify]'")
NOT_UNDERSTOOD: Final = Message("is no address that Apprise understands")
ADDRESS_HINT: Final = Message(
    "write it like mailtos://user:password@mail.clinic.uz?to=duty@clinic.uz; characters such as "
    "@ or / in a password are percent-encoded"
)
# Loggers of the libraries that send messages: they quote addresses, header fields and responses.
_NOISY_LOGGERS: Final = ("apprise", "oauthlib", "requests_oauthlib", "urllib3")
_KINDS: Final = {"begun": "failure", "over": "success"}


class MissingExtraError(Exception):
    """Apprise is not installed."""


@dataclass(frozen=True, slots=True)
class AlertMessage:
    """A message to operators; `kind` is `begun`, `over`, `daily` or `test`."""

    kind: str
    title: str
    body: str


@dataclass(frozen=True, slots=True)
class AlertAddress:
    """An address that receives messages. `name` is for display: the setting and the scheme."""

    name: Message
    url: Secret
    _service: Any = field(repr=False, compare=False)

    def send(self, message: AlertMessage) -> bool:
        """Send the message and return whether the service accepted it.

        Blocks until the service has responded or failed; raises nothing.
        """
        try:
            kind = _KINDS.get(message.kind, "info")
            return bool(
                self._service.notify(body=message.body, title=message.title, notify_type=kind)
            )
        except Exception:
            # A service's code may raise anything. The error's text may quote the address.
            return False

    def server(self) -> tuple[str, int] | None:
        """Return the host and port that messages are sent to, None if the address has none."""
        service = self._service
        if host := getattr(service, "smtp_host", None):
            return str(host), int(service.port)
        # The host part of other addresses may be a token.
        if "host" not in service.template_tokens or hasattr(service, "notify_url"):
            return None
        return str(service.host), int(service.port or (443 if service.secure else 80))


def parse_address(name: Message, url: Secret) -> AlertAddress | None:
    """Return the address of a URL, None if Apprise does not understand it.

    Raises `MissingExtraError`. Opens no connection. The first call imports the library, which takes
    most of a second.
    """
    apprise = _import_apprise()
    # Apprise stores nothing on disk, and loads no plugin code from there.
    asset = apprise.AppriseAsset(
        app_id="DHP Gateway", app_desc="DHP Gateway", app_url="", storage_mode="memory"
    )
    service = apprise.Apprise.instantiate(url.reveal(), asset=asset)
    if service is None:
        return None
    return AlertAddress(
        Message("{name} ({scheme})", name=name, scheme=urlsplit(url.reveal()).scheme), url, service
    )


def _import_apprise() -> Any:
    try:
        library = importlib.import_module("apprise")
    except ImportError:
        raise MissingExtraError from None
    silence_libraries(*_NOISY_LOGGERS)
    return library
