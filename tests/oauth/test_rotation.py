"""Rotation of client secrets: which are sent, in which order, and how often."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.config.outbound_settings import SsoSettings
from gateway.errors import ClientKeyError
from gateway.oauth.client_authentication import (
    ClientAuthenticator,
    parse_client_keys,
    parse_client_secrets,
)
from gateway.oauth.credential import Credential
from gateway.oauth.token_endpoint import TokenEndpoint
from gateway.oauth.token_response import TokenRequestError
from gateway.secret import Secret
from tests.doubles.sso import ReceivedRequest, ScriptedResponse, Sso, oauth_error, status, token
from tests.oauth.harness import credential_of
from tests.oauth.test_signing_keys import EC, RSA, pem

OTHER = ec.generate_private_key(ec.SECP384R1())


class StrictSso(Sso):
    """Issues tokens for the secrets it takes, and refuses all others."""

    def __init__(self) -> None:
        super().__init__()
        self.takes: set[str] = {"old"}
        self.refusal: ScriptedResponse = oauth_error("invalid_client", 401)

    def response_to(self, request: ReceivedRequest) -> ScriptedResponse:
        secret = request.form["client_secret"]
        return token(f"for-{secret}") if secret in self.takes else self.refusal

    @property
    def sent_secrets(self) -> list[str]:
        return [request.form["client_secret"] for request in self.requests]


@pytest.fixture
async def sso() -> AsyncIterator[StrictSso]:
    async with StrictSso() as running:
        yield running


@pytest.fixture
async def endpoint(sso: StrictSso) -> AsyncIterator[TokenEndpoint]:
    async with aiohttp.ClientSession() as session:
        yield TokenEndpoint(session=session, sso=SsoSettings(token_url=sso.token_url))


def secrets(text: str) -> tuple[ClientAuthenticator, ...]:
    return parse_client_secrets("id", Secret(text), in_header=False)


class File:
    """A secret file that a test changes."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.reads = 0

    def read(self) -> tuple[ClientAuthenticator, ...]:
        self.reads += 1
        if not self.text:
            raise OSError
        return secrets(self.text)


def source_of(
    endpoint: TokenEndpoint,
    text: str,
    reread: Callable[[], tuple[ClientAuthenticator, ...]] | None = None,
) -> Credential:
    return credential_of(endpoint, secrets(text), reread=reread)


def rereading_source(endpoint: TokenEndpoint, file: File) -> Credential:
    return source_of(endpoint, file.text, file.read)


async def value(source: Credential) -> str:
    """The token that a source gets, or the code of the refusal."""
    try:
        return (await source.request()).access_token.reveal()
    except TokenRequestError as error:
        return f"{error.kind} {error.oauth_error}"


class TestTwoSecrets:
    """The file holds two, for the overlap."""

    @pytest.mark.parametrize(
        ("takes", "values", "sent"),
        [
            (["old", "old"], ["for-old", "for-old"], ["new", "old", "old"]),
            (
                ["old", "new", "new"],
                ["for-old", "for-new", "for-new"],
                ["new", "old", "old", "new", "new"],
            ),
            (["new old"], ["for-new"], ["new"]),
        ],
        ids=["only the second", "the first later", "both"],
    )
    async def test_the_first_secret_is_used_as_soon_as_it_is_accepted(
        self,
        sso: StrictSso,
        endpoint: TokenEndpoint,
        takes: list[str],
        values: list[str],
        sent: list[str],
    ) -> None:
        source, found = source_of(endpoint, "new\nold\n"), []
        for each in takes:
            sso.takes = set(each.split())
            found.append(await value(source))
        assert (found, sso.sent_secrets) == (values, sent)

    async def test_a_rejected_first_secret_is_reported_once(
        self, sso: StrictSso, endpoint: TokenEndpoint, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = source_of(endpoint, "new\nold")
        assert not source.uses_previous_secret
        told = [[each.oauth_error for each in (await source.request()).refusals] for _ in "12"]
        assert told == [["invalid_client"], []]
        assert source.uses_previous_secret
        assert [record.message for record in caplog.records] == [
            "client id: the SSO refused the first secret; another one stays in use"
        ]
        sso.takes = {"new"}
        await source.request()
        assert not source.uses_previous_secret

    async def test_both_secrets_rejected(self, sso: StrictSso, endpoint: TokenEndpoint) -> None:
        sso.takes = set()
        source = source_of(endpoint, "new\nold")
        sso.script(oauth_error("unauthorized_client", 401), oauth_error("invalid_client", 401))
        assert await value(source) == "refused unauthorized_client"
        assert sso.sent_secrets == ["new", "old", "new"]

    async def test_the_first_secret_is_tried_again_when_the_second_is_rejected(
        self, sso: StrictSso, endpoint: TokenEndpoint
    ) -> None:
        sso.takes = {"new"}
        sso.script(oauth_error("invalid_client", 401))
        assert await value(source_of(endpoint, "new\nold")) == "for-new"
        assert sso.sent_secrets == ["new", "old", "new"]

    @pytest.mark.parametrize("answer", [status(503), status(429), oauth_error("invalid_scope")])
    async def test_other_failures_do_not_change_the_secret(
        self, sso: StrictSso, endpoint: TokenEndpoint, answer: ScriptedResponse
    ) -> None:
        sso.script(answer)
        with pytest.raises(TokenRequestError):
            await source_of(endpoint, "new\nold").request()
        assert sso.sent_secrets == ["new"]

    async def test_the_store_key_is_that_of_the_secret_in_use(
        self, sso: StrictSso, endpoint: TokenEndpoint
    ) -> None:
        source = source_of(endpoint, "new\nold")
        await value(source)
        assert source.store_key == source_of(endpoint, "old").store_key


class TestChangedFile:
    """The file is changed while the gateway runs."""

    @pytest.mark.parametrize("refusal", [oauth_error("invalid_client", 401), status(403)])
    async def test_the_file_is_read_again_after_a_rejection(
        self, sso: StrictSso, endpoint: TokenEndpoint, refusal: ScriptedResponse
    ) -> None:
        sso.refusal = refusal
        source = rereading_source(endpoint, file := File("old"))
        await value(source)
        sso.takes, file.text = {"new"}, "new"
        assert [await value(source), await value(source)] == ["for-new", "for-new"]
        assert (sso.sent_secrets, file.reads) == (["old", "old", "new", "new"], 1)

    @pytest.mark.parametrize(
        ("text", "outcome", "sent"),
        [
            ("older", "refused invalid_client", ["older"]),
            ("new\nold", "for-old", ["older", "new", "old"]),
            # It cannot be read.
            ("", "refused invalid_client", ["older"]),
        ],
        ids=["unchanged", "two", "unreadable"],
    )
    async def test_what_the_file_holds_then_is_tried_once(
        self, sso: StrictSso, endpoint: TokenEndpoint, text: str, outcome: str, sent: list[str]
    ) -> None:
        source = rereading_source(endpoint, file := File("older"))
        file.text = text
        assert await value(source) == outcome
        assert (sso.sent_secrets, file.reads) == (sent, 1)

    @pytest.mark.parametrize(
        ("answer", "outcome"),
        [
            (status(500), "transient None"),
            (oauth_error("invalid_scope"), "refused invalid_scope"),
        ],
    )
    async def test_other_failures_do_not_read_the_file(
        self, sso: StrictSso, endpoint: TokenEndpoint, answer: ScriptedResponse, outcome: str
    ) -> None:
        sso.script(answer)
        source = rereading_source(endpoint, file := File("old"))
        assert await value(source) == outcome
        assert file.reads == 0


async def successor(endpoint: TokenEndpoint, text: str, new_text: str) -> Credential:
    """Return a source that took over from one which has a token."""
    before, after = (rereading_source(endpoint, File(each)) for each in (text, new_text))
    await value(before)
    after.take_over(before)
    return after


class TestSuccessor:
    """A reload creates a new source with the knowledge of its predecessor."""

    async def test_an_accepted_new_secret_replaces_the_old_one(
        self, sso: StrictSso, endpoint: TokenEndpoint
    ) -> None:
        after = await successor(endpoint, "old", "new")
        sso.takes = {"new"}
        assert await value(after) == "for-new"
        sso.takes = {"old"}
        assert await value(after) == "refused invalid_client"
        assert sso.sent_secrets == ["old", "new", "new"]

    async def test_a_rejected_new_secret_leaves_the_old_one_in_use(
        self, sso: StrictSso, endpoint: TokenEndpoint
    ) -> None:
        after = await successor(endpoint, "old", "new")
        assert [await value(after), await value(after)] == ["for-old", "for-old"]
        sso.takes = {"new"}
        assert await value(after) == "for-new"
        assert sso.sent_secrets == ["old", "new", "old", "old", "old", "new"]

    async def test_a_new_second_secret_is_tried(
        self, sso: StrictSso, endpoint: TokenEndpoint
    ) -> None:
        after = await successor(endpoint, "old", "new\nold")
        sso.takes = {"new", "old"}
        assert await value(after) == "for-new"
        assert sso.sent_secrets == ["old", "new"]

    async def test_an_unchanged_working_secret_is_tried_first(
        self, sso: StrictSso, endpoint: TokenEndpoint
    ) -> None:
        after = await successor(endpoint, "new\nold", "new\nold")
        assert after.store_key == source_of(endpoint, "old").store_key
        assert await value(after) == "for-old"
        assert sso.sent_secrets == ["new", "old", "old"]


class TestFiles:
    """What a file may hold."""

    @pytest.mark.parametrize(
        ("text", "secrets"),
        [
            ("one", ["one"]),
            ("one\n", ["one"]),
            ("one\r\ntwo\r\n", ["one", "two"]),
            ("\none\n\ntwo\n\n", ["one", "two"]),
            ("one\none\n", ["one"]),
            (" one \x0b\n", [" one \x0b"]),
        ],
    )
    def test_each_line_is_a_secret_and_empty_lines_are_none(
        self, text: str, secrets: list[str]
    ) -> None:
        proofs = parse_client_secrets("id", Secret(text), in_header=False)
        assert [proof.material.reveal() for proof in proofs] == secrets

    @pytest.mark.parametrize(
        "read",
        [
            lambda: parse_client_secrets("id", Secret("a\nb\nc"), in_header=True),
            lambda: parse_client_keys("id", Secret(pem(RSA) + pem(EC) + pem(OTHER))),
        ],
        ids=["secrets", "keys"],
    )
    def test_three_secrets_are_refused(self, read: Callable[[], object]) -> None:
        with pytest.raises(ClientKeyError, match="more than two"):
            read()
