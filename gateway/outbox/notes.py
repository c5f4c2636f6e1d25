"""Notes of the outbox beside an outcome that the gateway determined, as messages of the catalogues.

A note is stored as its English text, which also stands in the outcome for the caller. Operators see
it in their language.
"""

from __future__ import annotations

from typing import Final

from gateway.i18n import Message

SENT: Final = Message("it was sent; whether the platform has it is not known")
UNREADABLE: Final = Message("what was kept of it cannot be read")
INTERRUPTED: Final = Message("the gateway ended while it sent this; outcome unknown")
NEVER_DELIVERED: Final = Message("given up after outbox.max_age; never delivered")
OUTCOME_UNKNOWN: Final = Message("given up after outbox.max_age; outcome unknown")
_UNKNOWN_NOTE: Final = Message("a note of another version of the gateway")
_STATUS: Final = "the platform's status was "


def platform_status(status: int) -> Message:
    """Return the note for a response that a server other than the platform's sent."""
    return Message("the platform's status was {status}", status=status)


def note_of(text: str) -> Message:
    """Return the note that was stored as this text."""
    status = text.removeprefix(_STATUS)
    if status != text and status.isdecimal():
        return platform_status(int(status))
    return Message.external(text, _UNKNOWN_NOTE) if text else Message("")
