"""What an exception on the request path means: a `GatewayError`, and how loud it is told."""

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

# Nothing helps against these but somebody who acts.
_OPERATOR_REASONS: Final = frozenset(
    (errors.TOKEN_REFUSED, errors.TOKEN_REJECTED, errors.UPSTREAM_TLS, errors.UPSTREAM_REDIRECT)
)


def log_level(reason: Reason) -> int:
    """How loud the log is: callers' mistakes are theirs, outages are the operator's business."""
    if reason in _OPERATOR_REASONS:
        return logging.ERROR
    return logging.WARNING if reason.status >= 500 else logging.INFO


def to_gateway_error(error: Exception, exchange: Exchange) -> GatewayError:
    """The error to answer with; a bug becomes `internal`, and its traceback goes to the log."""
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, UpstreamConnectionError):
        return connection_error(error)
    if isinstance(error, ContentCodingError):
        what = "the platform's answer is not in the Content-Encoding that it names"
        return GatewayError(errors.UPSTREAM_FAILED, what)
    # The one place that turns a bug into an answer. The message stays out: it could quote data.
    exchange.reason = errors.INTERNAL.code
    _log.error("internal error", exc_info=error, **exchange.log_fields())
    return GatewayError(errors.INTERNAL, type(error).__name__, close_connection=True)
