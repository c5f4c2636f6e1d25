"""Writes the first inputs of the corpus; inputs that fuzzing finds are added by hand.

python tests/fuzz/seeds.py
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

CORPUS: Final = Path(__file__).with_name("corpus")
_OK: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/fhir+json\r\n"
_ASK: Final = b"POST /fhir/Patient?a=b HTTP/1.1\r\nHost: gateway\r\n"
_JSON: Final = b'{"resourceType":"Bundle","type":"searchset","link":[{"relation":"next","url":'
_JSON_END: Final = b'"https://platform.example/r5/Patient?_page=2"}],"total":1.10,"signature":{}}'
_XML: Final = (
    b'<?xml version="1.0"?><Bundle xmlns="http://hl7.org/fhir"><link><url '
    b'value="https://platform.example/r5/Patient?a=b&amp;c"/></link><!-- x --></Bundle>'
)

SEEDS: Final[dict[str, list[bytes]]] = {
    "response": [
        b"\0\5" + _OK + b"Content-Length: 2\r\n\r\n{}",
        b"\0\3" + _OK + b'Transfer-Encoding: chunked\r\n\r\n2;a="b"\r\n{}\r\n0\r\nX-Sum: 1\r\n\r\n',
        b"\4\7" + _OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n01\r\n}\r\n000\r\n\r\n",
        b"\0\1" + _OK + b"\r\n{}",
        b"\0\1" + _OK.replace(b"1.1", b"1.0") + b"Connection: keep-alive\r\n\r\n{}",
        b"\1\2" + _OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\1\2" + _OK + b"Content-Length: 100\r\n\r\n",
        b"\4\4"
        + b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 E\r\nLink: <a>\r\n\r\n"
        + _OK
        + b"\r\n",
        b"\4\4HTTP/1.1 204 No Content\r\n\r\n",
        b'\4\4HTTP/1.1 304 \r\nETag: W/"1"\r\nContent-Length: 10\r\n\r\n',
        b"\4\1HTTP/1.1 101 S\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        b"\0\1" + _OK + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\4\1" + _OK + b"Content-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"\0\1" + _OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"\0\1" + _OK + b"X: 1\r\n folded\r\n\r\n",
    ],
    "rewriting": [
        bytes((variant, size)) + body
        for variant, body in (
            (65, _XML),
            (70, _JSON + _JSON_END),
            (
                5,
                (_JSON + _JSON_END).replace(
                    b"https://platform.example/r5", b"http://gateway:8080/fhir"
                ),
            ),
            (71, _XML),
            (67, _JSON + _JSON_END + b"\n" + _JSON + _JSON_END + b"\n"),
            (
                8,
                b'[{"op":"add","path":"/subject","value":{"reference":"http://gateway:8080/fhir/Patient/1"}}]',
            ),
            (4, b"subject=http%3A%2F%2Fgateway%3A8080%2Ffhir%2FPatient%2F1&a=b"),
            (
                70,
                b'{"resourceType":"Bundle","type":"document","link":[{"url":"https:\\/\\/platform.example/r5"}]}',
            ),
            (
                70,
                b'{"a":"\\u0068ttps://platform.example/r5","b":[1e400,-0.0,{}],"resourceType":"X"}',
            ),
        )
        for size in (0, 31)
    ],
    "request": [
        b"GET /fhir/Patient/1 HTTP/1.1\r\nHost: gateway\r\n\r\n",
        _ASK + b"Content-Length: 2\r\n\r\n{}",
        _ASK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        _ASK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-Sum: 1\r\n\r\n",
        _ASK.replace(b"1.1", b"1.0") + b"Connection: keep-alive\r\nContent-Length: 0\r\n\r\n",
        b"GET /fhir/%2e%2e/x;a=b/..;/%252e?q=%41 HTTP/1.1\r\nHost: g\r\n\r\n",
        b"GET /fhir/Patient HTTP/1.1\r\nHost: g\r\nConnection: close, X\r\n"
        b"X: 1\r\nX_Forwarded_For: 1\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: g\r\n\r\nGET /fhir HTTP/1.1\r\nHost: g\r\n\r\n",
        _ASK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET http://evil/fhir HTTP/1.1\r\nHost: g\r\nUpgrade: h2c\r\nVia: 1.1 dhp-gateway\r\n\r\n",
    ],
    "fields": [
        b"https://platform.example/r5/Patient/1/_history/1",
        b'<https://platform.example/r5/Patient?a=b>; rel="next"; '
        b'anchor="https://platform.example/r5", </r5/x>',
        b'{"resourceType":"Provenance","target":[{"reference":"http://gateway:8080/fhir/Patient/1"}]}',
        b"identifier=http%3A%2F%2Fgateway%3A8080%2Ffhir|1&subject=http://gateway:8080/fhir/Patient/1",
        b"//platform.example/r5/x",
    ],
    "via": [b"1.1 dhp-gateway", b"1.0 a (x), HTTP/1.1 b, 1.1 DHP-GATEWAY (y)", b"1.1 dhp-gatewayx"],
}


def main() -> None:
    """Write each seed to a file named after the SHA-1 of its content, as libFuzzer does."""
    for name, seeds in SEEDS.items():
        directory = CORPUS / name
        directory.mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            digest = hashlib.sha1(seed, usedforsecurity=False).hexdigest()
            (directory / digest).write_bytes(seed)


if __name__ == "__main__":
    main()
