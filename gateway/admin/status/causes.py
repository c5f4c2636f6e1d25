"""Texts of the status page that say why a credential has no token, one for each `Cause`."""

from __future__ import annotations

from typing import Final

from gateway.i18n import Message

TOKEN_CAUSE_MESSAGES: Final = {
    "refused": Message("our client is refused"),
    "throttled": Message("too many requests"),
    "redirect": Message("it answers with a redirect"),
    "error status": Message("it answers with an error"),
    "no OAuth error": Message(
        "it refuses without an OAuth error: a firewall in front, or a wrong address"
    ),
    "web page": Message("it answers with a web page: a firewall in front, or a wrong address"),
    "empty answer": Message("its answer is empty"),
    "unreadable answer": Message("its answer cannot be read"),
    "not HTTP": Message("its answer is not HTTP"),
    "not a JSON object": Message("its answer is no JSON object"),
    "no usable access_token": Message("there is no usable token in its answer"),
    "token_type is not Bearer": Message("its token is not of the type Bearer"),
    "token expired on arrival": Message("its token had expired when it came"),
    "time-out": Message("no answer in time"),
    "name not found": Message("its host name cannot be found"),
    "no connection": Message("no connection"),
    "connection broken": Message("the connection broke"),
    "proxy": Message("the proxy gives no connection"),
    "certificate": Message("its certificate is not trusted"),
    "certificate name": Message("its certificate is for another host"),
    "certificate time": Message("its certificate is not valid at this time"),
    "no TLS": Message("it does not speak TLS"),
    "TLS": Message("the TLS connection failed"),
    "internal error": Message("an error in the gateway, see the log"),
}
