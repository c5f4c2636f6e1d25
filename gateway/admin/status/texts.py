"""The texts of the status page.

Keys with `care:` say what to do about a service status, keys with `cause:` why there is no token.
"""

from __future__ import annotations

from typing import Final

from gateway.admin.status.causes import TOKEN_CAUSE_MESSAGES
from gateway.admin.status.platform_texts import PLATFORM_MESSAGES
from gateway.i18n import Message, in_all_languages

_OWN_MESSAGES: Final = {
    "title": Message("DHP Gateway"),
    "question": Message("Can care go on?"),
    "answer:yes": Message("Yes"),
    "answer:untried": Message("Not tried yet"),
    "answer:degraded": Message("With limits"),
    "answer:no": Message("No"),
    "care:fine": Message("Requests reach the platform. Nothing has to be done."),
    "care:shutting-down": Message(
        "The gateway is stopping. Start it again if that was not intended."
    ),
    "care:audit-unavailable": Message(
        "The audit cannot be written, so requests are refused. Check the disk or the audit's "
        "server."
    ),
    "care:token-refused": Message(
        "The sign-in service refuses our client. Run `dhp-gateway token` and compare "
        "`client_id` and secret with those that were issued."
    ),
    "care:token-awaited": Message("The first token is on its way. Wait a few seconds."),
    "care:sso-unavailable": Message(
        "The sign-in service gives no token. Check the network with `dhp-gateway doctor`; "
        "the gateway goes on asking by itself."
    ),
    "care:circuit-open": Message(
        "The platform fails and is left alone for a moment. Check the network with "
        "`dhp-gateway doctor`; the gateway tries again by itself."
    ),
    "care:circuit-half-open": Message(
        "The platform failed and is being tried again. Wait a moment."
    ),
    "care:renewal-fails": Message(
        "The token is still valid but could not be renewed. Act before it expires: run "
        "`dhp-gateway doctor`."
    ),
    "care:secret-refused": Message(
        "The sign-in service does not take the first secret in the file; another one serves. "
        "Unless an exchange is under way, put the right one there."
    ),
    "care:outbox-away": Message(
        "Requests reach the platform, but the outbox cannot be reached: writes cannot be "
        "queued, and those that wait are not delivered."
    ),
    "care:outbox-person": Message(
        "Requests reach the platform, but queued writes wait for a person's decision. Run "
        "`dhp-gateway outbox list`."
    ),
    "care:many-errors": Message("Half of the last requests or more failed. See the errors below."),
    "platform-error": Message("The platform itself answered with an error, which was passed on."),
    "platform-refusal": Message(
        "The platform itself refused the request, and its answer was passed on."
    ),
    "tokens": Message("Tokens"),
    "credential": Message("Credential"),
    "state": Message("State"),
    "valid": Message("valid"),
    "missing": Message("missing"),
    "rejected": Message("refused by the platform"),
    "failure": Message("Last failure"),
    "none": Message("none"),
    "platform": Message("Platform"),
    "sso": Message("Sign-in service (SSO)"),
    "connections": Message("Connections"),
    "inflight": Message("Requests under way"),
    "hour": Message("The last hour"),
    "requests": Message("Requests"),
    "errors": Message("Errors"),
    "slowest": Message("Slowest interactions of the last hour"),
    "interaction": Message("Interaction"),
    "duration": Message("Duration"),
    "status": Message("Status"),
    "time": Message("Time"),
    "reasons": Message("Last errors"),
    "callers": Message("Callers (since start)"),
    "caller": Message("Caller"),
    "settings": Message("Settings in force"),
    "version": Message("Version"),
    "uptime": Message("Running for"),
    "outbox": Message("Outbox"),
    "oldest": Message("The oldest waits"),
    "most": Message("Most in one minute"),
    "no-requests": Message("No requests yet."),
    "no-errors": Message("No errors."),
    "now": Message("now"),
    "anonymous": Message("anonymous"),
    "others": Message("others"),
    "nothing": Message("Nothing so far."),
    "as_of": Message("As of"),
    "stale": Message("No answer from the gateway: what you see is old."),
    "language": Message("Language"),
    "day": Message.within("day", "d"),
    "hour_unit": Message.within("hour_unit", "h"),
    "minute": Message("min"),
    "second": Message.within("second", "s"),
    "millisecond": Message("ms"),
    "decimal": Message.within("decimal", "."),
    "thousands": Message.within("thousands", ","),
    "token": Message("Token"),
    "expires": Message("Expires in"),
    "next": Message("Asked for again in"),
    "not-renewed": Message("not renewed"),
    "expires_in": Message("expires in"),
    "renewed_in": Message("renewed in"),
    "again_in": Message("next attempt in"),
    "good_of": Message("{good} of {all} are well"),
    "sso:answers": Message("answers"),
    "sso:awaited": Message("no answer yet"),
    "sso:refused": Message("refuses our client"),
    "sso:throttled": Message("asks us to wait"),
    "sso:transient": Message("gives no token"),
    "count": Message("{last_hour} in the last hour, {since_start} since start"),
    "last_seen": Message("last at"),
    "remedy": Message("What to do"),
    "outbox:away": Message.within("outbox:away", "cannot be reached"),
    "outbox:away:todo": Message(
        "New writes are refused, and what waits is not delivered. Look at its disk or "
        "database; it is tried again by itself."
    ),
    "outbox:fine": Message("nothing waits"),
    "outbox:fine:todo": Message("No write waits to be sent."),
    "outbox:waiting": Message("writes wait"),
    "outbox:waiting:todo": Message("They are sent by themselves once the platform answers."),
    "outbox:person": Message("a person decides"),
    "outbox:person:todo": Message("Run `dhp-gateway outbox list`."),
    "outbox:page": Message("Look at its page"),
    "connections:idle": Message("idle"),
    "connections:active": Message("active"),
    "connections:connecting": Message("connecting"),
    "entry:waiting": Message.within("entry:waiting", "waiting"),
    "entry:sending": Message("being sent"),
    "entry:delivered": Message("sent"),
    "entry:failed": Message.within("entry:failed", "failed"),
    "entry:unclear": Message("unclear"),
    "entry:cancelled": Message.within("entry:cancelled", "cancelled"),
    "entry:dropped": Message.within("entry:dropped", "dropped"),
}

STATUS_MESSAGES: Final = {
    **_OWN_MESSAGES,
    **PLATFORM_MESSAGES,
    **{f"cause:{cause}": text for cause, text in TOKEN_CAUSE_MESSAGES.items()},
}
STATUS_WORDS: Final = in_all_languages(STATUS_MESSAGES)
