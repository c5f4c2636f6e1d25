"""Records at a syslog server with its own parser of RFC 5424."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import trustme

from gateway import os_support
from gateway.audit.audit_writer import SinkError, WriterThread
from gateway.audit.syslog_sink import SyslogFormatter, SyslogSink
from tests.audit.conftest import MAX_WAIT
from tests.doubles.certificates import client_context, server_context

MESSAGE = re.compile(
    rb"<(\d{1,3})>1 (\d{4}-\d\d-\d\dT[\d:.]+Z) (\S{1,255}) (\S{1,48}) (\S{1,128}) (\S{1,32}) "
    rb'\[meta sequenceId="(\d+)"\] (.*)\Z',
    re.DOTALL,
)
OpenSink = Callable[..., SyslogSink]
RECORD = {"event": "exchange", "timestamp": "2026-01-01T00:00:00.125Z", "outcome": "success"}


@dataclass
class Message:
    """One message as a receiver understands it."""

    priority: int
    timestamp: str
    host: str
    application: str
    process: str
    kind: str
    sequence: int
    text: bytes

    @classmethod
    def parse(cls, data: bytes) -> Message:
        """By the grammar of RFC 5424 section 6."""
        found = MESSAGE.match(data)
        assert found is not None, data
        priority, *words, sequence, text = found.groups()
        return cls(int(priority), *(word.decode() for word in words), int(sequence), text)

    @property
    def record(self) -> Any:
        return json.loads(self.text)


class Receiver:
    """A server that takes one connection at a time and splits frames by their octet counts."""

    def __init__(self, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self.received: list[Message] = []
        self._changed = threading.Condition()
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def until(self, count: int) -> list[Message]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.received) >= count, 60), self.received
            return list(self.received)

    def hang_up(self) -> None:
        if self._connection is not None:
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with contextlib.suppress(OSError):
            self.hang_up()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self._tls is not None:
                    connection = self._tls.wrap_socket(connection, server_side=True)
                self._connection = connection
                self._read(connection)
            except OSError:
                pass
            finally:
                connection.close()
                self._connection = None

    def _read(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as stream:
            while digits := self._count(stream):
                data = stream.read(int(digits))
                with self._changed:
                    self.received.append(Message.parse(data))
                    self._changed.notify_all()

    @staticmethod
    def _count(stream: Any) -> bytes:
        digits = b""
        while (byte := stream.read(1)) not in (b" ", b""):
            digits += byte
        return digits


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.close()


@pytest.fixture
def now() -> list[float]:
    """The sink's clock."""
    return [100.0]


@pytest.fixture
def open_sink(now: list[float]) -> Iterator[OpenSink]:
    sinks = []

    def build(transport: Any, port: int, **more: Any) -> SyslogSink:
        url = f"{transport}://{more.pop('host', '127.0.0.1')}:{port}"
        formatter = SyslogFormatter("gw-01", 4711)
        sinks.append(SyslogSink(url=url, formatter=formatter, clock=lambda: now[0], **more))
        return sinks[-1]

    yield build
    for sink in sinks:
        sink.close()


def line(**fields: Any) -> bytes:
    text = json.dumps({**RECORD, **fields}, separators=(",", ":"), ensure_ascii=False)
    return f"{text}\n".encode()


def test_records_arrive_over_tcp(receiver: Receiver, open_sink: OpenSink) -> None:
    sink = open_sink("tcp", receiver.port)
    sink.write([line(n=1), line(n=2)])
    sink.write([line(n=3)])
    messages = receiver.until(3)
    assert [message.record["n"] for message in messages] == [1, 2, 3]
    assert [message.sequence for message in messages] == [1, 2, 3]
    first = messages[0]
    assert first.text == line(n=1).rstrip()
    assert (first.timestamp, first.host, first.application, first.process, first.kind) == (
        *("2026-01-01T00:00:00.125Z", "gw-01", "dhp-gateway", "4711", "exchange"),
    )


@pytest.mark.parametrize(
    ("fields", "priority"),
    [
        ({"outcome": "success"}, 85),
        ({"outcome": "client-error"}, 84),
        ({"outcome": "aborted"}, 84),
        ({"outcome": "failure"}, 83),
        ({"event": "token", "outcome": "ok"}, 85),
        ({"event": "token", "outcome": "refused"}, 83),
        ({"event": "reload", "outcome": "failed"}, 83),
        ({"event": "audit-event", "resource": {"outcome": {"code": {"code": "fatal"}}}}, 83),
    ],
)
def test_the_severity_follows_the_outcome(fields: dict[str, Any], priority: int) -> None:
    message = Message.parse(SyslogFormatter("gw-01", 1).message(line(**fields)))
    assert message.priority == priority


def test_messages_are_ascii() -> None:
    message = Message.parse(SyslogFormatter("gw-01", 1).message(line(user="Азиза")))
    assert message.text.isascii()
    assert message.record["user"] == "Азиза"


def test_records_arrive_over_udp(open_sink: OpenSink) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(60)
        sink = open_sink("udp", server.getsockname()[1])
        sink.write([line(n=1), line(n=2)])
        assert [Message.parse(server.recv(65536)).record["n"] for _ in range(2)] == [1, 2]


def test_records_arrive_over_tls(open_sink: OpenSink) -> None:
    authority = trustme.CA()
    receiver = Receiver(server_context(authority, "127.0.0.1", clients=authority))
    theirs = client_context(authority, issuer=authority, name="gw.clinic.uz")
    sink = open_sink("tls", receiver.port, tls=lambda: theirs)
    sink.write([line(n=1)])
    assert receiver.until(1)[0].record["n"] == 1
    sink.write([line(n=2)])
    assert receiver.until(2)[1].record["n"] == 2
    sink.close()
    receiver.close()


def test_an_untrusted_server_receives_nothing(open_sink: OpenSink) -> None:
    receiver = Receiver(server_context(trustme.CA(), "127.0.0.1"))
    theirs = client_context(trustme.CA())
    sink = open_sink("tls", receiver.port, tls=lambda: theirs)
    with pytest.raises(ssl.SSLCertVerificationError):
        sink.write([line(n=1)])
    sink.close()
    receiver.close()
    assert receiver.received == []


def test_records_are_not_written_where_a_client_certificate_is_missing(
    open_sink: OpenSink, now: list[float]
) -> None:
    """As at syslog-ng 3.38 with `peer-verify(required-trusted)`: it acknowledges, then hangs up."""
    authority = trustme.CA()
    receiver = Receiver(server_context(authority, "127.0.0.1", clients=authority))
    ours = client_context(authority, issuer=authority, name="gw.clinic.uz")
    contexts = [ours, client_context(authority)]
    sink = open_sink("tls", receiver.port, tls=contexts.pop)
    with pytest.raises(SinkError, match="client certificate"):
        sink.write([line(n=1)])
    now[0] += 0.6
    sink.write([line(n=1)])
    assert [message.sequence for message in receiver.until(1)] == [1]
    sink.close()
    receiver.close()


def test_records_are_not_written_where_the_server_expects_tls(open_sink: OpenSink) -> None:
    """As at syslog-ng 3.38, or at a TCP proxy without its server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.recv(65536)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        sink = open_sink("tcp", listener.getsockname()[1])
        with pytest.raises(SinkError, match="closed the new connection"):
            sink.write([line(n=1)])
        thread.join()


async def test_the_log_names_an_untrusted_certificate(
    open_sink: OpenSink, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = Receiver(server_context(trustme.CA(), "127.0.0.1"))
    theirs = client_context(trustme.CA())
    sink = open_sink("tls", receiver.port, tls=lambda: theirs)
    writer = WriterThread(sink, on_failure="drop", on_records=lambda _outcome, _count: None)
    writer.enqueue([line(n=1)])
    await writer.close(MAX_WAIT)
    receiver.close()
    assert caplog.records[0].msg["error"] == "SSLCertVerificationError"


def test_a_closed_connection_is_replaced(
    receiver: Receiver, open_sink: OpenSink, now: list[float]
) -> None:
    sink = open_sink("tcp", receiver.port)
    sink.write([line(n=1)])
    receiver.until(1)
    receiver.hang_up()
    sink.write([line(n=2)])
    assert [message.record["n"] for message in receiver.until(2)] == [1, 2]


@pytest.mark.parametrize("is_given_up", [False, True], ids=["sent later", "given up"])
def test_an_unreachable_server_is_retried_after_a_delay(
    open_sink: OpenSink, now: list[float], is_given_up: bool
) -> None:
    """Attempts fail at once between connections; then nothing is lost but what was given up.

    The numbers show a gap where the lost records would be.
    """
    receiver = Receiver()
    receiver.close()
    sink = open_sink("tcp", receiver.port)
    with pytest.raises(ConnectionRefusedError):
        sink.write([line(n=1), line(n=2)])
    if is_given_up:
        assert sink.discard_failed() == 2
    lines = [line(n=3)] if is_given_up else [line(n=1), line(n=2)]
    successor = Receiver(port=receiver.port)
    with pytest.raises(ConnectionError, match="a moment ago"):
        sink.write(lines)
    now[0] += 0.6
    sink.write(lines)
    sent = [(message.sequence, message.record["n"]) for message in successor.until(len(lines))]
    assert sent == ([(3, 3)] if is_given_up else [(1, 1), (2, 2)])
    sink.close()
    successor.close()


def test_records_are_sent_again_after_a_reset(
    open_sink: OpenSink, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    # So small a window that the server's system cannot take everything.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    port = listener.getsockname()[1]
    sink = open_sink("tcp", port)
    all_sent, count = threading.Event(), os_support.unacknowledged_bytes

    def count_unacknowledged(connection: socket.socket) -> int:
        all_sent.set()
        return count(connection)

    monkeypatch.setattr(os_support, "unacknowledged_bytes", count_unacknowledged)

    def take_and_reset() -> None:
        connection, _ = listener.accept()
        connection.recv(100)
        # By then all is in the sender's system, which waits for room in ours.
        all_sent.wait(60)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
        listener.close()

    thread = threading.Thread(target=take_and_reset)
    thread.start()
    batch = [line(n=number, filling="x" * 1000) for number in range(200)]
    with pytest.raises(OSError, match="closed the new connection"):
        sink.write(batch)
    thread.join()
    receiver = Receiver(port=port)
    now[0] += 0.6
    sink.write(batch)
    assert [message.sequence for message in receiver.until(200)] == list(range(1, 201))
    sink.close()
    receiver.close()
