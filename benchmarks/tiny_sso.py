"""The benchmark's SSO: gives every client the same token, which is valid for an hour.

tiny_sso.py PORT TOKEN
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class TokenEndpoint(BaseHTTPRequestHandler):
    """Responds to each POST with the token of the command line."""

    def do_POST(self) -> None:
        """Send a token response (RFC 6749 section 5.1)."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        token = {"access_token": sys.argv[2], "token_type": "Bearer", "expires_in": 3600}
        body = json.dumps(token).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), TokenEndpoint).serve_forever()
