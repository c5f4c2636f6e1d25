"""The texts of the outbox for the user of the calling system."""

from __future__ import annotations

from typing import Final

from gateway.i18n import Message, in_all_languages

MESSAGES: Final = {
    "queued": Message(
        "The platform cannot take this write now. The gateway has stored it safely and "
        "delivers it once, as soon as it can. Do not send it again; the address in "
        "Content-Location tells how it ended."
    ),
    "waiting": Message(
        "This write is stored safely and waits for its delivery. Do not send it again."
    ),
    "sending": Message("This write is being delivered. Do not send it again."),
    "delivered": Message("This write was delivered already and can no longer be cancelled."),
    "failed": Message(
        "The platform refused this write: nothing was saved. Correct it, cancel this entry "
        "and send it again."
    ),
    "expired": Message(
        "This write could not be delivered for so long that the gateway has given it up. Ask "
        "the gateway's operator, who can still deliver it."
    ),
    "unclear": Message(
        "It is not known whether the platform has saved this write. Find and read the record "
        "before you send it again. The gateway's operator can deliver it or drop it."
    ),
    "locked": Message(
        "This write may have reached the platform and cannot be cancelled now. Ask again "
        "later how it ended."
    ),
    "cancelled": Message("This write was cancelled by its sender and was not delivered."),
    "cancelling": Message("This write is cancelled and will not be delivered."),
    "dropped": Message("The gateway's operator has given this write up."),
}
TEXTS: Final = in_all_languages(MESSAGES)


def outbox_text(word: str, language: str) -> str:
    """Return the text for `word`, in English where the language is not supported."""
    return TEXTS.get(language, TEXTS["en"])[word]
