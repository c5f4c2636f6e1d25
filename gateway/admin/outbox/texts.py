"""The texts of the outbox pages, which extend those of the status page.

Keys with `said:` report the result of an action, keys with `refused:` why it was not possible.
"""

from __future__ import annotations

from typing import Final

from gateway.admin.outbox.causes import ENTRY_CAUSE_MESSAGES
from gateway.admin.status.texts import STATUS_MESSAGES as COMMON_MESSAGES
from gateway.i18n import Message, in_all_languages

PAGE_MESSAGES: Final = {
    "verdict:away": Message("The outbox cannot be reached"),
    "verdict:person": Message("Entries wait for your decision"),
    "verdict:waiting": Message("Writes wait for the line"),
    "verdict:fine": Message("Nothing waits"),
    "advice:person": Message(
        "They hold up what comes after them for the same patient. Read below why, and what to do."
    ),
    "card:waiting": Message("Waiting"),
    "card:failed": Message("Failed"),
    "card:unclear": Message("Unclear"),
    "card:sending": Message("Being sent"),
    "since": Message("since {at}"),
    "why": Message("Why, and what to do"),
    "entries": Message("Entries"),
    "all": Message("All"),
    "id": Message("Entry"),
    "queued": Message("Since"),
    "cause": Message("Cause"),
    "attempts": Message("Attempts"),
    "only": Message("Only these: {what}"),
    "show": Message("Show"),
    "back": Message("Back to the list"),
    "first": Message("First page"),
    "next": Message("Next page"),
    "none-here": Message("No such entries."),
    "to-status": Message("Status page"),
    "signed-in": Message("Signed in: {name}"),
    "sign-in": Message("Sign in"),
    "read-only": Message(
        "This page can only be read. To allow people to retry and drop, name them in "
        "`admin.operators`, each with a `password_file`; a reload is enough."
    ),
    "sign-in-first": Message("To retry or drop, sign in with a name of `admin.operators`."),
    "retry": Message("Send once more"),
    "retry:about": Message("It is tried at once, and keeps its place in its order."),
    "retry-all": Message("Send all {count} once more"),
    "drop": Message("Drop"),
    "drop:about": Message(
        "Dropping gives the write up for good: it is deleted here and what waited for it "
        "goes on. The audit keeps your name and the reason."
    ),
    "reason": Message("Reason"),
    "reason:hint": Message("Nothing about a patient"),
    "reveal": Message("Show in full"),
    "reveal:about": Message("Shows the patient's data. The audit keeps your name."),
    "reveal:off": Message("What is about a patient is hidden: `outbox.reveal` is not set."),
    "what": Message("Write"),
    "bytes": Message("Bytes"),
    "finished": Message("Ended"),
    "due": Message("Next attempt"),
    "answer": Message("Answer of the platform"),
    "note": Message("Note"),
    "address": Message("Address"),
    "fields": Message("Header fields"),
    "body": Message("Content"),
    "request_id": Message("Request id"),
    "cut": Message(
        "The rest is left out: {bytes} bytes in all. All of it: `dhp-gateway outbox show --reveal`."
    ),
    "said:retried": Message("Sent once more: {count}. How it ends, you will see here."),
    "said:dropped": Message("The entry is dropped."),
    "refused:sign-in": Message("Name or password is wrong, or missing."),
    "refused:too-many": Message("Too many wrong passwords from your address. Wait a minute."),
    "refused:foreign": Message(
        "This did not come from this page, so nothing was done. Open the page and try again."
    ),
    "refused:old-form": Message("The page was too old, so nothing was done. Open it again."),
    "refused:form": Message("Something is missing in the form, so nothing was done."),
    "refused:no-reason": Message("A reason is missing, so nothing was done."),
    "refused:read-only": Message("Nobody may decide here: `admin.operators` is empty."),
    "refused:hidden": Message("Entries are not shown in full: `outbox.reveal` is not set."),
    "refused:unrecorded": Message(
        "Nothing is shown: the audit has to have it first who sees an entry, and cannot be "
        "written now."
    ),
    "refused:missing": Message(
        "There is no such entry. It may have been forgotten after its time."
    ),
    "refused:not-possible": Message("The entry is in another state by now, so nothing was done."),
    "refused:away": Message(
        "The outbox cannot be reached now, so it is not known what is in it. It is tried "
        "again by itself."
    ),
    "refused:disabled": Message(
        "There is no outbox: `outbox.enabled` is false. With one, writes are kept while the "
        "line is down, and delivered later."
    ),
}

PAGE_WORDS: Final = in_all_languages(PAGE_MESSAGES)
OUTBOX_MESSAGES: Final = {**COMMON_MESSAGES, **ENTRY_CAUSE_MESSAGES, **PAGE_MESSAGES}
OUTBOX_WORDS: Final = in_all_languages(OUTBOX_MESSAGES)
