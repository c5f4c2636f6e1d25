"""A FHIR repository that receives batches of AuditEvents, records them, and can misbehave.

It runs in a separate thread, so that the event loop of a gateway in the test's process can be
observed too.

    repository = Repository()
    repository.behave(500)            # then: back to normal with behave(None)
    repository.wait_until(lambda stored: len(stored) >= 3)
    repository.close()
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Behaviour = int | Literal["hang", "reset", "take-and-reset", "short", "nonsense", "lose"] | None


@dataclass(frozen=True)
class Batch:
    """A request as it was received."""

    path: str
    headers: dict[str, str]
    bundle: dict[str, Any]


class Repository:
    """The server. `entry_status` may return another status than 201 or 200 for an entry.

    With the behaviour "lose" it responds as with None, and stores nothing.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.batches: list[Batch] = []
        self.stored: dict[str, list[dict[str, Any]]] = {}
        self.entry_status: Callable[[dict[str, Any]], int | None] = lambda resource: None
        self.retry_after: str | None = None
        self.minimal: int | None = None  # the status of a response without single entries
        self.is_minimal_always = True  # also without `Prefer: return=minimal`
        self.reads: list[str] = []  # paths
        self.read_reply: tuple[int, bytes] | None = None  # in place of what is stored
        self.other: bytes | None = None  # the body sent in place of a batch-response
        self.resets = 0  # how many of the next requests get no response
        self._behaviour: Behaviour = None
        self._changed = threading.Condition()
        self._released = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        port = self._server.server_address[1]
        scheme, host = ("http", "127.0.0.1") if tls is None else ("https", "localhost")
        self.url = f"{scheme}://{host}:{port}/fhir"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def behave(self, behaviour: Behaviour) -> None:
        """Set the behaviour from now on. None means normal responses."""
        self._behaviour = behaviour
        self._released.set()
        self._released = threading.Event()

    def wait_until(self, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Return the newest versions by id, once `condition` is true of them."""
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.current()), 120), self.stored
            return self.current()

    def wait_for_requests(self, times: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.batches) >= times, 120), self.batches

    def current(self) -> dict[str, Any]:
        return {key: versions[-1] for key, versions in self.stored.items()}

    def hang_up(self) -> None:
        """Close every connection; new ones are served."""
        self._server.hang_up()

    def close(self) -> None:
        self.behave("reset")
        self._server.shutdown()
        self._server.server_close()
        self._server.hang_up()
        self._thread.join()

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        bundle = json.loads(body)
        headers = {name.lower(): value for name, value in handler.headers.items()}
        behaviour, released = self._behaviour, self._released
        if self.resets:
            self.resets -= 1
            behaviour = "reset"
        response = b"{}"
        if behaviour in (None, "take-and-reset", "lose"):
            response = self._store(bundle, is_lost=behaviour == "lose")
        elif behaviour == "short":
            response = b'{"resourceType":"Bundle","type":"batch-response","entry":[]}'
        with self._changed:
            self.batches.append(Batch(handler.path, headers, bundle))
            self._changed.notify_all()
        if behaviour == "hang":
            released.wait(60)
        if behaviour in ("hang", "reset", "take-and-reset"):
            handler.close_connection = True
            with contextlib.suppress(OSError):
                handler.connection.shutdown(socket.SHUT_RDWR)
            return
        status = behaviour if isinstance(behaviour, int) else 200
        is_minimal = self.is_minimal_always or headers.get("prefer") == "return=minimal"
        if behaviour in (None, "lose") and self.minimal is not None and is_minimal:
            status, response = self.minimal, b""
        self._reply(handler, status, response if self.other is None else self.other)

    def read(self, handler: BaseHTTPRequestHandler) -> None:
        with self._changed:
            self.reads.append(handler.path)
            versions = self.stored.get(handler.path.removeprefix("/fhir/AuditEvent/"))
        if self.read_reply is not None:
            self._reply(handler, *self.read_reply)
        elif versions is None:
            self._reply(handler, 404, b'{"resourceType":"OperationOutcome"}')
        else:
            self._reply(handler, 200, json.dumps(versions[-1]).encode())

    def _reply(self, handler: BaseHTTPRequestHandler, status: int, response: bytes) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", "application/fhir+json")
        handler.send_header("Content-Length", str(len(response)))
        if 300 <= status < 400:
            handler.send_header("Location", "/elsewhere")
        if self.retry_after is not None:
            handler.send_header("Retry-After", self.retry_after)
        handler.end_headers()
        handler.wfile.write(response)

    def _store(self, bundle: dict[str, Any], *, is_lost: bool) -> bytes:
        responses = []
        with self._changed:
            for entry in bundle["entry"]:
                status = self.entry_status(entry["resource"])
                if status is None:
                    kind, _, resource_id = entry["request"]["url"].partition("/")
                    assert (entry["request"]["method"], kind) == ("PUT", "AuditEvent")
                    assert entry["resource"]["id"] == resource_id
                    versions = [] if is_lost else self.stored.setdefault(resource_id, [])
                    versions.append(entry["resource"])
                    status = 201 if len(versions) == 1 else 200
                responses.append({"response": {"status": f"{status} stored"}})
        response = {"resourceType": "Bundle", "type": "batch-response", "entry": responses}
        return json.dumps(response).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._open: list[socket.socket] = []

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.append(request)
        super().process_request(request, client_address)

    def hang_up(self) -> None:
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def _handler(repository: Repository) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            with contextlib.suppress(OSError):
                repository.take(self)

        def do_GET(self) -> None:
            with contextlib.suppress(OSError):
                repository.read(self)

        def log_message(self, *args: Any) -> None:
            """Log nothing."""

    return Handler
