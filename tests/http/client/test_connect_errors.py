"""Log messages of connections to the platform that cannot be made."""

from __future__ import annotations

import errno
import socket
import ssl

import pytest

from gateway.http.client.upstream_connect import UpstreamOrigin, connect_error

PLACE = UpstreamOrigin("fhir.example", 443, None)


def verification(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed: planted")
    error.verify_code = code
    return error


def tls(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, "planted")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "planted"), "upstream-unreachable", "nothing"),
        (TimeoutError(), "upstream-unreachable", "within 5 s"),
        (
            socket.gaierror(-2, "planted"),
            "upstream-unreachable",
            "fhir.example of platform.fhir_base_url cannot",
        ),
        (OSError(errno.ENETUNREACH, "planted"), "upstream-unreachable", "network is unreachable"),
        (ConnectionResetError(), "upstream-unreachable", "ended the connection"),
        (OSError("planted"), "upstream-unreachable", "unknown reason"),
        (verification(20), "upstream-tls", "platform.ca_file"),
        (verification(62), "upstream-tls", "another name than fhir.example"),
        (verification(10), "upstream-tls", "clock"),
        (tls("WRONG_VERSION_NUMBER"), "upstream-tls", "there is no TLS on this port"),
        (tls("NO_SHARED_CIPHER"), "upstream-tls", "no shared cipher"),
    ],
)
def test_each_failure_is_a_sentence(error: OSError, reason: str, words: str) -> None:
    """It names the platform, and no class of Python's, nor any text that the platform sent."""
    outcome = connect_error(error, PLACE, 5.0)
    assert outcome.reason.code == reason
    assert words in outcome.detail
    assert "fhir.example" in outcome.detail
    assert "Error" not in outcome.detail
    assert "planted" not in outcome.detail


def test_only_a_timeout_is_not_retryable() -> None:
    assert not connect_error(TimeoutError(), PLACE, 5.0).is_retryable
    assert connect_error(ConnectionRefusedError(), PLACE, 5.0).is_retryable
