"""TLS towards the platform, from the other side of the line, on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gc
import itertools
import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import pytest
import trustme

from gateway.errors import GatewayError
from gateway.proxy.connection import UpstreamConnection
from gateway.proxy.framing import Broken
from gateway.proxy.pool import Origin, Timeouts, UpstreamPool
from gateway.proxy.tls_transport import TlsTransport
from gateway.proxy.turn_end import TurnEnd
from gateway.proxy.upstream import broken
from tests.doubles.tls_peer import TlsInMemory, TlsLine, TlsPeer
from tests.proxy.stage import until

REQUEST = b"GET /r5/Patient/1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY = b'{"resourceType":"Patient","id":"1"}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
BY_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n" + BODY
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    """The platform's CA."""
    return trustme.CA()


@pytest.fixture(params=VERSIONS, ids=["1.2", "1.3"])
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    """Each version that is in use."""
    found: ssl.TLSVersion = request.param
    return found


def server_side(
    ca: trustme.CA, version: ssl.TLSVersion | None = None, clients: trustme.CA | None = None
) -> ssl.SSLContext:
    """The platform's side, which may want certificates of this CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if clients is not None:
        clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_side(ca: trustme.CA | None) -> ssl.SSLContext:
    """Ours, which trusts this CA."""
    context = ssl.create_default_context()
    if ca is not None:
        ca.configure_trust(context)
    return context


@dataclass
class Ours:
    """Our side: a pool, and what it opens."""

    context: ssl.SSLContext
    port: int
    timeouts: Timeouts = field(default_factory=lambda: Timeouts(5.0, 5.0, 5.0))

    def __post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        origin = Origin("localhost", self.port, self.context)
        self.pool = UpstreamPool(origin, timeouts=self.timeouts, max_connections=4, clock=loop.time)
        self.opening = loop.create_task(self.open())

    async def open(self) -> UpstreamConnection | tuple[str, str, bool]:
        """A connection; else why there is none, and whether another attempt may help."""
        try:
            return await self.pool.acquire(new=True)
        except GatewayError as error:
            return error.reason.code, error.detail, error.repeatable

    async def opened(self) -> UpstreamConnection:
        """The connection."""
        made = await self.opening
        assert isinstance(made, UpstreamConnection)
        return made

    async def refused(self) -> tuple[str, str, bool]:
        """Why there is none."""
        outcome = await self.opening
        assert isinstance(outcome, tuple)
        return outcome


@dataclass
class Both:
    """Both sides of one connection."""

    connection: UpstreamConnection
    line: TlsLine
    pool: UpstreamPool

    async def ask(self, request: bytes = REQUEST) -> None:
        """Send a request, which comes whole."""
        self.connection.begin(expect_body=True)
        self.connection.write_whole(request)
        assert await self.line.read_until() == request

    async def answered(self) -> bytes:
        """The answer's body. Raises `Broken`."""
        return await read(self.connection)

    async def lost(self) -> None:
        """Return when nothing is left of our side."""
        await until(lambda: self.connection.transport is None)


async def read(connection: UpstreamConnection) -> bytes:
    """The body of an answer. Raises `Broken`."""
    while connection.head() is None:
        await connection.news()
    body = b""
    while pieces := await connection.read():
        body += b"".join(pieces)
    return body


@contextlib.asynccontextmanager
async def connected(ca: trustme.CA, version: ssl.TLSVersion | None = None) -> AsyncIterator[Both]:
    """A connection whose handshake is done."""
    async with TlsPeer(server_side(ca, version)) as peer:
        ours = Ours(client_side(ca), peer.port)
        line = await peer.accept()
        await line.shake_hands()
        both = Both(await ours.opened(), line, ours.pool)
        yield both
        both.connection.abort()
        await both.lost()


@pytest.fixture
async def both(ca: trustme.CA, version: ssl.TLSVersion) -> AsyncIterator[Both]:
    """A connection whose handshake is done, in each version."""
    async with connected(ca, version) as made:
        yield made


# The handshake.


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
    """A platform that says nothing is given up, and so is one that nobody waits for any more."""
    async with TlsPeer(server_side(ca)) as peer:
        timeouts = Timeouts(0.2 if by == "time-out" else 5.0, 5.0, 5.0)
        ours = Ours(client_side(ca), peer.port, timeouts)
        line = await peer.accept()
        assert await line.receive()
        if by == "time-out":
            outcome, told_by_log, _ = await ours.refused()
            assert outcome == "upstream-unreachable"
            assert "within 0.2 s" in told_by_log
        else:
            ours.opening.cancel()
        assert await line.closed()
        assert ours.pool.counts() == {"idle": 0, "active": 0, "connecting": 0}


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
        assert not connection.reusable
        connection.begin(expect_body=True)
        connection.write_whole(REQUEST)
        with pytest.raises(Broken):
            await read(connection)
        assert await line.at_end() == "close_notify"


# Our own certificate.


@pytest.mark.parametrize("has_one", [True, False], ids=["of another CA", "none"])
async def test_platform_refuses_our_certificate(
    ca: trustme.CA, version: ssl.TLSVersion, has_one: bool
) -> None:
    """The outcome is TLS's, also in TLS 1.3, where it comes when our handshake is long done."""
    context = client_side(ca)
    if has_one:
        trustme.CA().issue_cert("hospital-17.test").configure_cert(context)
    async with TlsPeer(server_side(ca, version, clients=trustme.CA())) as peer:
        ours = Ours(context, peer.port)
        line = await peer.accept()
        with pytest.raises(ssl.SSLError):
            await line.shake_hands()
        if version == ssl.TLSVersion.TLSv1_3:
            connection = await ours.opened()
            connection.begin(expect_body=True)
            connection.write_whole(REQUEST)
            with pytest.raises(Broken, match="certificate") as caught:
                await read(connection)
            outcome = broken(caught.value, safe=False)
            assert not outcome.hint
            refused = outcome.reason.code, outcome.detail, outcome.repeatable
        else:
            refused = await ours.refused()
        assert await line.closed()
    assert refused[0] == "upstream-tls"
    assert not refused[2]
    if has_one or version == ssl.TLSVersion.TLSv1_3:
        assert "did not accept our certificate" in refused[1]


async def test_mutual_tls(ca: trustme.CA, version: ssl.TLSVersion) -> None:
    """A platform that wants a certificate gets ours."""
    context, clients = client_side(ca), trustme.CA()
    clients.issue_cert("hospital-17.test").configure_cert(context)
    async with TlsPeer(server_side(ca, version, clients)) as peer:
        ours = Ours(context, peer.port)
        line = await peer.accept()
        await line.shake_hands()
        both = Both(await ours.opened(), line, ours.pool)
        await both.ask()
        await line.send(line.record(ANSWER))
        assert await both.answered() == BODY
        assert line.tls.getpeercert()
        both.connection.abort()


# Answers.


async def test_conversation(both: Both) -> None:
    """One connection carries one exchange after the other, and closes with close_notify."""
    for _ in range(3):
        await both.ask()
        await both.line.send(both.line.record(ANSWER))
        assert await both.answered() == BODY
        assert both.connection.reusable
    both.connection.rest(0.0)
    both.connection.close()
    assert await both.line.at_end() == "close_notify"
    await both.lost()


async def test_last_words_in_one_segment(both: Both) -> None:
    """close_notify ends an answer without a length, also where it comes with the last data."""
    await both.ask()
    await both.line.send(both.line.record(BY_CLOSE) + both.line.goodbye())
    assert await both.answered() == BODY
    assert not both.connection.reusable
    assert await both.line.at_end() == "close_notify"
    await both.lost()


async def test_goodbye_after_a_whole_answer(both: Both) -> None:
    """An answer stays whole where close_notify comes with it; the connection is used no more."""
    await both.ask()
    await both.line.send(both.line.record(ANSWER) + both.line.goodbye())
    assert await both.answered() == BODY
    assert not both.connection.reusable
    await both.lost()


@pytest.mark.parametrize("how", ["end", "reset"])
async def test_cut_without_a_goodbye(both: Both, how: str) -> None:
    """Without close_notify an answer without a length is cut, whoever cut the line."""
    await both.ask()
    await both.line.send(both.line.record(BY_CLOSE))
    await until(lambda: both.connection.pending)
    if how == "end":
        both.line.raw.shutdown(socket.SHUT_WR)
    else:
        both.line.reset()
    with pytest.raises(Broken, match="truncated"):
        await both.answered()


@pytest.mark.parametrize("how", ["end", "goodbye", "goodbye and end", "reset"])
async def test_end_before_the_answer(both: Both, how: str) -> None:
    """A connection that ends before any byte of an answer is told from one that ends later."""
    await both.ask()
    if "goodbye" in how:
        await both.line.send(both.line.goodbye())
    if "end" in how:
        both.line.raw.shutdown(socket.SHUT_WR)
    if how == "reset":
        both.line.reset()
    with pytest.raises(Broken, match="closed"):
        await both.answered()
    await both.lost()


@pytest.mark.parametrize("how", ["end", "goodbye", "data", "data and goodbye"])
async def test_end_while_idle(both: Both, how: str) -> None:
    """A kept connection is given up as soon as the platform says anything, or ends it."""
    await both.ask()
    await both.line.send(both.line.record(ANSWER))
    assert await both.answered() == BODY
    both.connection.rest(0.0)
    last = both.line.record(ANSWER) if "data" in how else b""
    last += both.line.goodbye() if "goodbye" in how else b""
    await both.line.send(last)
    if how == "end":
        both.line.raw.shutdown(socket.SHUT_WR)
    await both.lost()
    assert not both.connection.reusable
    assert await both.line.closed()


def spoilt(record: bytes) -> bytes:
    """A record that somebody changed on its way."""
    return record[:-1] + bytes([record[-1] ^ 1])


@pytest.mark.parametrize("before", [b"", ANSWER[:-10], ANSWER])
async def test_changed_record(both: Both, before: bytes) -> None:
    """What was changed on the way never counts; what was whole before it does (bad_record_mac)."""
    await both.ask()
    good = both.line.record(before) if before else b""
    await both.line.send(good + spoilt(both.line.record(BODY)))
    if before == ANSWER:
        assert await both.answered() == BODY
    else:
        with pytest.raises(Broken, match="truncated" if before else "closed"):
            await both.answered()
    assert not both.connection.reusable
    assert await both.line.at_end() == "SSLV3_ALERT_BAD_RECORD_MAC"


async def test_long_answer_waits_for_its_reader(both: Both) -> None:
    """However long an answer is, only so much of it is here as its caller takes."""
    body = os.urandom(24 * 1024 * 1024)
    await both.ask()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    sending = asyncio.get_running_loop().create_task(
        both.line.send(both.line.record(head) + both.line.record(body))
    )
    while both.connection.head() is None:
        await both.connection.news()
    got = b""
    for turn in itertools.count():
        if turn < 3:
            # Nobody takes anything for a while; the platform goes on as far as it can.
            await asyncio.sleep(0.05)
            assert not sending.done()
        pieces = await both.connection.read()
        if not pieces:
            break
        assert sum(map(len, pieces)) <= 1024 * 1024
        got += b"".join(pieces)
    assert got == body
    await sending
    assert both.connection.reusable


async def test_long_request_waits_for_its_reader(both: Both) -> None:
    """A platform that takes nothing holds an upload up; then all of it arrives, in order."""
    pieces = [os.urandom(300_000) for _ in range(64)]
    connection, written = both.connection, 0

    async def upload() -> None:
        nonlocal written
        for piece in pieces:
            connection.write(piece)
            await connection.drained()
            written += 1

    connection.begin(expect_body=True)
    uploading = asyncio.get_running_loop().create_task(upload())
    seen = -1
    while seen != written:
        seen = written
        await asyncio.sleep(0.05)
    assert written < len(pieces)
    got = bytearray()
    while len(got) < sum(map(len, pieces)):
        got += await both.line.read()
    assert got == b"".join(pieces)
    await uploading


async def test_whole_request_of_any_size(both: Both) -> None:
    """A request of several records and slices arrives as it is; nothing at all is no record."""
    connection = both.connection
    connection.begin(expect_body=True)
    for size in (0, 1, 16 * 1024, 64 * 1024, 64 * 1024 + 1, 1_000_000):
        sent = bytes(size)
        connection.write(sent + b"END")
        connection.write(b"")
        assert await both.line.read_until(b"END") == sent + b"END"


# Byte by byte, without a line.


class Loose(asyncio.Transport):
    """A TCP transport whose bytes a test carries over."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it."""
        self.sent += data

    def take(self) -> bytes:
        """What was written since."""
        sent, self.sent = self.sent, b""
        return sent

    def is_closing(self) -> bool:
        """Not yet."""
        return False

    def close(self) -> None:
        """It is over."""

    def get_write_buffer_size(self) -> int:
        """Everything is carried over at once."""
        return 0


def one_connection() -> UpstreamConnection:
    """A connection that no pool knows."""
    return UpstreamConnection(
        lambda: 0.0, lambda _: None, response_timeout=9.0, idle_timeout=9.0, turn_end=TurnEnd()
    )


async def test_bytes_one_by_one(ca: trustme.CA, version: ssl.TLSVersion) -> None:
    """Handshake, tickets and answers are understood wherever they are cut."""
    connection, loose = one_connection(), Loose()
    transport = TlsTransport(connection, client_side(ca), "localhost")
    server = TlsInMemory(server_side(ca, version))
    transport.connection_made(loose)
    while sent := loose.take():
        for byte in server.answer(sent):
            transport.data_received(bytes([byte]))
    await transport.established()
    for cut in itertools.count():
        connection.begin(expect_body=True)
        connection.write(REQUEST)
        record = server.record(ANSWER[:9]) + server.record(ANSWER[9:])
        transport.data_received(record[:cut])
        transport.data_received(record[cut:])
        assert await read(connection) == BODY
        assert connection.reusable
        if cut == len(record):
            break
    connection.begin(expect_body=True)
    for byte in server.record(BY_CLOSE) + server.goodbye():
        assert not connection.complete
        transport.data_received(bytes([byte]))
    assert await read(connection) == BODY
    assert not connection.reusable


# The end of our side.


async def test_close_towards_a_platform_that_reads_nothing(ca: trustme.CA) -> None:
    """What waits to be sent holds a connection up for a while, not for ever."""
    lost = asyncio.Event()
    connection = UpstreamConnection(
        lambda: 0.0,
        lambda _: lost.set(),
        response_timeout=9.0,
        idle_timeout=9.0,
        turn_end=TurnEnd(),
    )
    async with TlsPeer(server_side(ca)) as peer:
        secure = TlsTransport(connection, client_side(ca), "localhost", longest_close=0.1)
        loop = asyncio.get_running_loop()
        opening = loop.create_task(loop.create_connection(lambda: secure, "127.0.0.1", peer.port))
        line = await peer.accept()
        await line.shake_hands()
        await opening
        await secure.established()
        connection.begin(expect_body=True)
        connection.write(bytes(32 * 1024 * 1024))
        await asyncio.sleep(0.01)
        connection.close()
        connection.write(b"more")
        assert not lost.is_set()
        await lost.wait()
        assert not await line_is_whole(line, 32 * 1024 * 1024)


async def line_is_whole(line: TlsLine, size: int) -> bool:
    """Whether so many bytes arrive before the end."""
    got = 0
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while data := await line.read():
            got += len(data)
    return got >= size


@pytest.fixture
def uncollected() -> Iterator[None]:
    """What is not free by itself stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def left() -> list[object]:
    """What is still there of any connection."""
    kinds = (UpstreamConnection, TlsTransport, ssl.SSLObject)
    return [each for each in gc.get_objects() if isinstance(each, kinds)]


async def end(how: str, both: Both) -> None:
    """Let a connection in the midst of an exchange, or after one, end so."""
    line, connection = both.line, both.connection
    await both.ask()
    if how == "goodbye":
        await line.send(line.record(ANSWER[:-1]) + line.goodbye())
    elif how == "end":
        line.raw.shutdown(socket.SHUT_WR)
    elif how == "reset":
        line.reset()
    elif how == "changed":
        await line.send(spoilt(line.record(ANSWER)))
    elif how == "nonsense":
        await line.send(line.record(b"nonsense\r\n\r\n"))
    elif how == "abort":
        connection.abort()
    elif how == "close":
        await line.send(line.record(ANSWER))
        await both.answered()
        connection.close()
    with contextlib.suppress(Broken):
        await both.answered()
    both.pool.release(connection)
    await both.lost()


@pytest.mark.parametrize(
    "how", ["goodbye", "end", "reset", "changed", "nonsense", "abort", "close"]
)
async def test_lost_connections_are_free(ca: trustme.CA, uncollected: None, how: str) -> None:
    """Nothing holds on to a lost connection, so that no memory waits for a collection."""
    async with connected(ca) as both:
        await end(how, both)
    del both
    await until(lambda: not ours_of(left()))


def ours_of(found: list[object]) -> list[object]:
    """Without the doubles' own."""
    return [each for each in found if not (isinstance(each, ssl.SSLObject) and each.server_side)]


@pytest.mark.parametrize("how", ["certificate", "plain HTTP", "end", "reset", "time-out", "cancel"])
async def test_failed_handshakes_are_free(ca: trustme.CA, uncollected: None, how: str) -> None:
    """Nor does anything hold on to what never came to be a connection."""
    async with TlsPeer(server_side(ca)) as peer:
        await fail(how, ca, peer)
    await until(lambda: not ours_of(left()))


async def fail(how: str, ca: trustme.CA, peer: TlsPeer) -> None:
    """Let a handshake fail so."""
    timeouts = Timeouts(0.1 if how == "time-out" else 5.0, 5.0, 5.0)
    ours = Ours(client_side(None if how == "certificate" else ca), peer.port, timeouts)
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
