"""Writes the octets of programs on Windows that do not run here; the argument names the file.

A field without a value is not sent. As their libraries do, it reuses a connection until it sees
that the gateway has closed it.
"""

import os
import socket
import sys
from email.parser import BytesParser
from pathlib import Path
from urllib.parse import quote, urlsplit

from serve import BASE, Answer, serve

REQUEST = Path(__file__).with_name(f"{sys.argv[1]}.http").read_text("ascii")
PROXY = os.environ.get("http_proxy")
kept: list[socket.socket] = []


def call(method: str, url: str, body: bytes | None = None, etag: str | None = None) -> Answer:
    """Return status, fields and body of a response."""
    place = urlsplit(url)
    facts = {
        "method": method,
        "target": url if PROXY else url.partition(place.netloc)[2],
        "host": place.netloc,
        "version": "1.0" if method == "POST" else "1.1",
        "length": None if body is None else len(body),
        "etag": etag,
    }
    lines = REQUEST.splitlines()
    written = [
        line.format_map(facts) for line in lines if not (body is None and "Content-" in line)
    ]
    head = "".join(f"{line}\r\n" for line in written if not line.endswith(": None"))
    if PROXY:
        head = head.replace("\r\nConnection:", "\r\nProxy-Connection:")
    return exchange(urlsplit(PROXY or url), f"{head}\r\n".encode("ascii") + (body or b""))


def exchange(place, message: bytes) -> Answer:
    """Send a message on the persistent connection, or on a new one, and return the response."""
    connection = kept.pop() if kept else None
    if connection is None or is_over(connection):
        connection = socket.create_connection((place.hostname, place.port))
    connection.sendall(message)
    with connection.makefile("rb") as answer:
        version, status, *_ = answer.readline().split()
        head = iter(answer.readline, b"\r\n")
        fields = BytesParser().parsebytes(b"".join(head))
        length = fields["Content-Length"]
        text = b"".join(pieces(answer)) if length is None else answer.read(int(length))
    said = fields.get("Connection", "close" if version == b"HTTP/1.0" else "keep-alive")
    if said.lower() == "keep-alive":
        kept.append(connection)
    else:
        connection.close()
    return int(status), fields, text


def is_over(connection: socket.socket) -> bool:
    """Return whether the gateway has closed the connection."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        connection.setblocking(True)
        return False


def pieces(answer):
    """Return the chunks of a body."""
    while size := int(answer.readline(), 16):
        yield answer.read(size)
        answer.readline()
    answer.readline()


def search(name: str) -> Answer:
    """Search for all patients of that name."""
    return call("GET", f"{BASE}/Patient?name={quote(name)}")


serve(call, search)
