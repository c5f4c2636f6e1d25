"""Texts that explain why an entry is not delivered, and what an operator can do about it."""

from __future__ import annotations

from typing import Final

from gateway.admin.status.remedies import REMEDIES
from gateway.i18n import Message, in_all_languages

ENTRY_CAUSE_MESSAGES: Final = {
    "why:turn": Message(
        "It waits for its turn: for the line, or for earlier writes of the same patient."
    ),
    "why:line": Message("The platform could not be reached."),
    "why:broken": Message("The connection broke, or there was no answer in time."),
    "why:busy": Message("The platform asked to wait."),
    "why:token": Message("There was no token that the platform takes."),
    "why:strange": Message("Something else than the platform answered."),
    "why:expired": Message("It could not be delivered within `outbox.max_age`."),
    "why:internal": Message("The gateway could not process it."),
    "why:content": Message("The platform refused the content ({status})."),
    "why:rights": Message("The platform does not allow it ({status})."),
    "why:gone": Message("What it refers to is not there ({status})."),
    "why:conflict": Message("The platform has another version of it ({status})."),
    "why:refused": Message("The platform refused it ({status})."),
    "why:trouble": Message("The platform failed while it had this write ({status})."),
    "why:other": Message("It was not delivered: {cause}."),
    "todo:waiting": Message("Nothing. It is delivered by itself, in its order."),
    "todo:unclear": Message(
        "Look at the platform whether the write is there. If it is, drop it here; if not, "
        "send it once more."
    ),
    "todo:expired": Message(
        "Mend the line, then send it once more. If the caller has entered it anew, drop it."
    ),
    "todo:content": Message(
        "Have it corrected and entered anew in the system that sent it, and drop it here: "
        "sent once more it would be refused again."
    ),
    "todo:rights": Message(
        "Ask the platform's support for the permission, then send it once more."
    ),
    "todo:gone": Message(
        "See whether an earlier write is missing: deliver that first, then send this once "
        "more. Else have it entered anew, and drop it here."
    ),
    "todo:conflict": Message(
        "Somebody has changed it meanwhile. Have the present version looked at and the "
        "change entered anew, and drop it here."
    ),
    "todo:failed": Message(
        "Mend the cause, then send it once more; or have it entered anew, and drop it here."
    ),
}

ENTRY_CAUSES: Final = in_all_languages(ENTRY_CAUSE_MESSAGES)

_OF_STATUS: Final = {
    **dict.fromkeys((400, 413, 415, 422), "content"),
    **dict.fromkeys((401, 403), "rights"),
    **dict.fromkeys((404, 410), "gone"),
    **dict.fromkeys((409, 412), "conflict"),
}
_OF_REASON: Final = {
    "": "turn",
    **dict.fromkeys(("upstream-unreachable", "circuit-open", "upstream-tls"), "line"),
    **dict.fromkeys(("upstream-failed", "upstream-timeout"), "broken"),
    **dict.fromkeys(("upstream-busy", "rate-limited"), "busy"),
    **dict.fromkeys(("sso-unavailable", "token-refused", "token-rejected"), "token"),
    **dict.fromkeys(("upstream-non-fhir", "upstream-redirect"), "strange"),
    "expired": "expired",
    "internal": "internal",
}


def explain_cause(cause: str, language: str) -> str:
    """Return the explanation of an entry's `cause`."""
    kind, status = _cause_kind(cause)
    return ENTRY_CAUSES[language][f"why:{kind}"].format(status=status, cause=cause)


def cause_remedy(state: str, cause: str, language: str) -> str:
    """Return what an operator should do about an entry in `state`."""
    if state == "waiting" and cause in REMEDIES[language]:
        # An open circuit is a consequence: the remedy is that of an unreachable platform.
        return REMEDIES[language]["upstream-unreachable" if cause == "circuit-open" else cause]
    words, kind = ENTRY_CAUSES[language], _cause_kind(cause)[0]
    if state == "failed":
        return words.get(f"todo:{kind}", words["todo:failed"])
    return words["todo:unclear" if state == "unclear" else "todo:waiting"]


def _cause_kind(cause: str) -> tuple[str, str]:
    """Return the kind of a cause, and the status by which the platform refused it, or ""."""
    word, _, status = cause.partition(" ")
    if word != "platform-status" or len(status) != 3 or not status.isdecimal():
        return _OF_REASON.get(cause, "other"), ""
    return _OF_STATUS.get(int(status), "refused" if int(status) < 500 else "trouble"), status
