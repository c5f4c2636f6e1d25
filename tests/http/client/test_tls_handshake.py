"""Handshakes with the platform, from the other side of the line, on both event loops."""

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
from tests.doubles.rest import until
from tests.doubles.tls_peer import TlsPeer
from tests.http.client.tls_stage import (
    ANSWER,
    REQUEST,
    Ours,
    client_side,
    left,
    read,
    server_side,
)

CERTIFICATES = {
    "untrusted": ("localhost", False, "is not trusted", "TLSV1_ALERT_UNKNOWN_CA"),
    "other name": ("elsewhere.test", True, "another name", "SSLV3_ALERT_BAD_CERTIFICATE"),
    "expired": ("localhost", True, "not valid at this time", "SSLV3_ALERT_CERTIFICATE_EXPIRED"),
}


@pytest.mark.parametrize("case", CERTIFICATES)
async def test_bad_certificate(ca: trustme.CA, version: ssl.TLSVersion, case: str) -> None:
    """A platform that cannot show who it is gets no request, but an alert that says why."""
    name, trusted, words, alert = CERTIFICATES[case]
    ended = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    context = server_side(ca, version)
    ca.issue_cert(name, not_after=ended if case == "expired" else None).configure_cert(context)
    async with TlsPeer(context) as peer:
        ours = Ours(client_side(ca if trusted else None), peer.port)
        line = await peer.accept()
        with pytest.raises(ssl.SSLError) as told:
            await line.shake_hands()
        assert told.value.reason == alert
        assert await line.closed()
        outcome, told_by_log, repeatable = await ours.refused()
    assert outcome == "upstream-tls"
    assert words in told_by_log
    assert not repeatable


PLAIN = b"HTTP/1.1 400 Bad Request\r\n\r\n"
UNFINISHED = {
    "plain HTTP": (PLAIN, False, "upstream-tls", "does not speak TLS"),
    "an alert": (b"\x15\x03\x03\x00\x02\x02\x28", False, "upstream-tls", "handshake failure"),
    "end": (b"", False, "upstream-unreachable", "ended the connection while"),
    "end in a record": (b"\x16\x03\x03\x00", False, "upstream-unreachable", "ended the connection"),
    "reset": (b"", True, "upstream-unreachable", "ended the connection while"),
}


@pytest.mark.parametrize("case", UNFINISHED)
async def test_handshake_that_ends(ca: trustme.CA, case: str) -> None:
    """Whatever comes in place of a handshake, the outcome names what it was."""
    sent, by_reset, code, words = UNFINISHED[case]
    async with TlsPeer(server_side(ca)) as peer:
        ours = Ours(client_side(ca), peer.port)
        line = await peer.accept()
        assert await line.receive()
        await line.send(sent)
        if by_reset:
            line.reset()
        elif code == "upstream-unreachable":
            line.raw.shutdown(socket.SHUT_WR)
        outcome, told_by_log, _ = await ours.refused()
        assert by_reset or await line.closed()
    assert outcome == code
    assert words in told_by_log


@pytest.mark.parametrize("by", ["time-out", "cancellation"])
async def test_handshake_without_an_end(ca: trustme.CA, by: str) -> None:
    """A handshake without a response ends at the timeout, or when its waiter is cancelled."""
    async with TlsPeer(server_side(ca)) as peer:
        timeout = 2.0 if by == "time-out" else 5.0
        ours = Ours(client_side(ca), peer.port, timeout)
        line = await peer.accept()
        assert await line.receive()
        if by == "time-out":
            outcome, told_by_log, _ = await ours.refused()
            assert outcome == "upstream-unreachable"
            assert "within 2 s" in told_by_log
        else:
            ours.opening.cancel()
        assert await line.closed()
        assert ours.pool.connection_counts() == {"idle": 0, "active": 0, "connecting": 0}


async def test_answer_with_the_end_of_the_handshake(
    ca: trustme.CA, version: ssl.TLSVersion
) -> None:
    """What comes before anything was asked answers nothing, and the request stays here."""
    async with TlsPeer(server_side(ca, version)) as peer:
        ours = Ours(client_side(ca), peer.port)
        line = await peer.accept()
        await line.shake_hands(last=ANSWER)
        connection = await ours.opened()
        # In TLS 1.3 it comes after the end of our side of the handshake.
        await until(lambda: connection.transport is None or connection.transport.is_closing())
        assert not connection.is_reusable
        connection.start_exchange(expect_body=True)
        connection.write_request(REQUEST)
        with pytest.raises(UpstreamConnectionError):
            await read(connection)
        assert await line.at_end() == "close_notify"


# Our own certificate.


@pytest.mark.parametrize("has_one", [True, False], ids=["of another CA", "none"])
async def test_platform_refuses_our_certificate(
    ca: trustme.CA, version: ssl.TLSVersion, has_one: bool
) -> None:
    """The outcome is TLS's, also in TLS 1.3, where it comes when our handshake is long done."""
    context = client_side(ca, issuer=trustme.CA() if has_one else None)
    async with TlsPeer(server_side(ca, version, clients=trustme.CA())) as peer:
        ours = Ours(context, peer.port)
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
            refused = await ours.refused()
        assert await line.closed()
    assert refused[0] == "upstream-tls"
    assert not refused[2]
    if has_one or version == ssl.TLSVersion.TLSv1_3:
        assert "did not accept our certificate" in refused[1]


# What is left.


@pytest.mark.parametrize("how", ["certificate", "plain HTTP", "end", "reset", "time-out", "cancel"])
async def test_failed_handshakes_are_free(ca: trustme.CA, uncollected: None, how: str) -> None:
    """Nor does anything hold on to what never came to be a connection."""
    async with TlsPeer(server_side(ca)) as peer:
        await fail(how, ca, peer)
    await until(lambda: not left())


async def fail(how: str, ca: trustme.CA, peer: TlsPeer) -> None:
    """Let a handshake fail so."""
    timeout = 2.0 if how == "time-out" else 5.0
    ours = Ours(client_side(None if how == "certificate" else ca), peer.port, timeout)
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
        await ours.refused()
