"""Handshakes with the platform, seen from the platform, on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
import ssl

import pytest
import trustme

from gateway.http.client.response_head import UpstreamConnectionError
from gateway.pipeline.upstream import connection_error
from tests.doubles.tls_peer import TlsPeer
from tests.doubles.waiting import wait_until
from tests.http.client.tls_ends import (
    ANSWER,
    REQUEST,
    GatewayEnd,
    client_side,
    read,
    remaining_objects,
    server_side,
)

CERTIFICATES = {
    "untrusted": ("localhost", False, "is not trusted", "TLSV1_ALERT_UNKNOWN_CA"),
    "other name": ("elsewhere.test", True, "another name", "SSLV3_ALERT_BAD_CERTIFICATE"),
    "expired": ("localhost", True, "not valid at this time", "SSLV3_ALERT_CERTIFICATE_EXPIRED"),
}


@pytest.mark.parametrize("case", CERTIFICATES)
async def test_a_platform_with_an_invalid_certificate_gets_an_alert(
    ca: trustme.CA, version: ssl.TLSVersion, case: str
) -> None:
    """And no request."""
    name, trusted, words, alert = CERTIFICATES[case]
    ended = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    context = server_side(ca, version)
    ca.issue_cert(name, not_after=ended if case == "expired" else None).configure_cert(context)
    async with TlsPeer(context) as peer:
        ours = GatewayEnd(client_side(ca if trusted else None), peer.port)
        line = await peer.accept()
        with pytest.raises(ssl.SSLError) as told:
            await line.shake_hands()
        assert told.value.reason == alert
        assert await line.closed()
        outcome, told_by_log, repeatable = await ours.failed()
    assert outcome == "upstream-tls"
    assert words in told_by_log
    assert not repeatable


PLAIN = b"HTTP/1.1 400 Bad Request\r\n\r\n"
UNFINISHED = {
    "plain HTTP": (PLAIN, False, "upstream-tls", "there is no TLS on this port"),
    "an alert": (b"\x15\x03\x03\x00\x02\x02\x28", False, "upstream-tls", "handshake failure"),
    "end": (b"", False, "upstream-unreachable", "ended the connection while"),
    "end in a record": (b"\x16\x03\x03\x00", False, "upstream-unreachable", "ended the connection"),
    "reset": (b"", True, "upstream-unreachable", "ended the connection while"),
}


@pytest.mark.parametrize("case", UNFINISHED)
async def test_each_failed_handshake_is_named(ca: trustme.CA, case: str) -> None:
    sent, by_reset, code, words = UNFINISHED[case]
    async with TlsPeer(server_side(ca)) as peer:
        ours = GatewayEnd(client_side(ca), peer.port)
        line = await peer.accept()
        assert await line.receive()
        await line.send(sent)
        if by_reset:
            line.reset()
        elif code == "upstream-unreachable":
            line.raw.shutdown(socket.SHUT_WR)
        outcome, told_by_log, _ = await ours.failed()
        assert by_reset or await line.closed()
    assert outcome == code
    assert words in told_by_log


@pytest.mark.parametrize("by", ["time-out", "cancellation"])
async def test_a_handshake_without_a_response_times_out(ca: trustme.CA, by: str) -> None:
    """Or ends when its waiter is cancelled."""
    async with TlsPeer(server_side(ca)) as peer:
        timeout = 1.0 if by == "time-out" else 5.0
        ours = GatewayEnd(client_side(ca), peer.port, timeout)
        line = await peer.accept()
        assert await line.receive()
        if by == "time-out":
            outcome, told_by_log, _ = await ours.failed()
            assert outcome == "upstream-unreachable"
            assert "within 1 s" in told_by_log
        else:
            ours.opening.cancel()
        assert await line.closed()
        assert ours.pool.connection_counts() == {"idle": 0, "active": 0, "connecting": 0}


async def test_response_before_request_is_an_error(ca: trustme.CA, version: ssl.TLSVersion) -> None:
    """The request is not sent."""
    async with TlsPeer(server_side(ca, version)) as peer:
        ours = GatewayEnd(client_side(ca), peer.port)
        line = await peer.accept()
        await line.shake_hands(last=ANSWER)
        connection = await ours.opened()
        # In TLS 1.3 it comes after the end of our side of the handshake.
        await wait_until(lambda: connection.transport is None or connection.transport.is_closing())
        assert not connection.is_reusable
        connection.start_exchange(expect_body=True)
        connection.write_request(REQUEST)
        with pytest.raises(UpstreamConnectionError):
            await read(connection)
        assert await line.at_end() == "close_notify"


# Our own certificate.


@pytest.mark.parametrize("has_one", [True, False], ids=["of another CA", "none"])
async def test_a_rejected_client_certificate_is_named(
    ca: trustme.CA, version: ssl.TLSVersion, has_one: bool
) -> None:
    """Also in TLS 1.3, where the alert follows the client's end of the handshake."""
    context = client_side(ca, issuer=trustme.CA() if has_one else None)
    async with TlsPeer(server_side(ca, version, clients=trustme.CA())) as peer:
        ours = GatewayEnd(context, peer.port)
        line = await peer.accept()
        with pytest.raises(ssl.SSLError):
            await line.shake_hands()
        if version == ssl.TLSVersion.TLSv1_3:
            connection = await ours.opened()
            connection.start_exchange(expect_body=True)
            connection.write_request(REQUEST)
            with pytest.raises(UpstreamConnectionError, match="certificate") as caught:
                await read(connection)
            outcome = connection_error(caught.value, safe=False)
            assert not outcome.hint
            refused = outcome.reason.code, outcome.detail, outcome.is_retryable
        else:
            refused = await ours.failed()
        assert await line.closed()
    assert refused[0] == "upstream-tls"
    assert not refused[2]
    if has_one or version == ssl.TLSVersion.TLSv1_3:
        assert "did not accept our certificate" in refused[1]


# What is left.


@pytest.mark.parametrize("how", ["certificate", "plain HTTP", "end", "reset", "time-out", "cancel"])
async def test_failed_handshakes_leave_no_objects(
    ca: trustme.CA, uncollected: None, how: str
) -> None:
    async with TlsPeer(server_side(ca)) as peer:
        await fail(how, ca, peer)
    await wait_until(lambda: not remaining_objects())


async def fail(how: str, ca: trustme.CA, peer: TlsPeer) -> None:
    """Let a handshake fail so."""
    timeout = 1.0 if how == "time-out" else 5.0
    ours = GatewayEnd(client_side(None if how == "certificate" else ca), peer.port, timeout)
    line = await peer.accept()
    if how == "certificate":
        with contextlib.suppress(ssl.SSLError):
            await line.shake_hands()
    else:
        assert await line.receive()
    if how == "plain HTTP":
        await line.send(PLAIN)
    elif how == "end":
        line.raw.shutdown(socket.SHUT_WR)
    elif how == "reset":
        line.reset()
    elif how == "cancel":
        ours.opening.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await ours.failed()
