"""Maps exceptions on the request path to a `GatewayError` and to a log level."""

from __future__ import annotations

import logging
from typing import Final

from gateway import errors
from gateway.errors import GatewayError, Reason
from gateway.exchange import Exchange
from gateway.http.client.framing import UpstreamConnectionError
from gateway.http.content_coding import ContentCodingError
from gateway.pipeline.upstream import connection_error
from gateway.telemetry.logs import get_logger

_log = get_logger(__name__)

# These failures last until an operator acts.
_OPERATOR_REASONS: Final = frozenset(
    (errors.TOKEN_REFUSED, errors.TOKEN_REJECTED, errors.UPSTREAM_TLS, errors.UPSTREAM_REDIRECT)
)


def log_level(reason: Reason) -> int:
    """Return the log level of a failure.

    ERROR: an operator has to act. WARNING: an outage (status 500 and above). INFO: a mistake of the
    caller.
    """
    if reason in _OPERATOR_REASONS:
        return logging.ERROR
    return logging.WARNING if reason.status >= 500 else logging.INFO


def to_gateway_error(error: Exception, exchange: Exchange) -> GatewayError:
    """Return the error to send; a bug becomes `internal`, and its traceback is logged."""
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, UpstreamConnectionError):
        return connection_error(error)
    if isinstance(error, ContentCodingError):
        detail = "the platform's answer is not in the Content-Encoding that it names"
        return GatewayError(errors.UPSTREAM_FAILED, detail)
    # The only place that turns a bug into a response. The exception's message is omitted, because
    # it could quote data.
    exchange.reason = errors.INTERNAL.code
    _log.error("internal error", exc_info=error, **exchange.log_fields())
    return GatewayError(errors.INTERNAL, type(error).__name__, close_connection=True)
