"""One secret gives way to another: what the SSO is shown, in which order, and how often."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.config.outbound_settings import CredentialSettings, SsoSettings
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
from tests.oauth.test_signing_keys import EC, RSA, pem

OTHER = ec.generate_private_key(ec.SECP384R1())


class StrictSso(Sso):
    """Issues tokens for the secrets it takes, and refuses all others."""

    def __init__(self) -> None:
        super().__init__()
        self.takes: set[str] = {"old"}
        self.refusal: ScriptedResponse = oauth_error("invalid_client", 401)

    def response_to(self, request: ReceivedRequest) -> ScriptedResponse:
        """Judge the secret."""
        secret = request.form["client_secret"]
        return token(f"for-{secret}") if secret in self.takes else self.refusal

    @property
    def shown(self) -> list[str]:
        """The secrets of all requests, in their order."""
        return [request.form["client_secret"] for request in self.requests]


@pytest.fixture
async def sso() -> AsyncIterator[StrictSso]:
    """A running SSO that takes the old secret."""
    async with StrictSso() as running:
        yield running


@pytest.fixture
async def endpoint(sso: StrictSso) -> AsyncIterator[TokenEndpoint]:
    """Where sources ask."""
    async with aiohttp.ClientSession() as session:
        yield TokenEndpoint(session=session, sso=SsoSettings(token_url=sso.token_url))


def secrets(text: str) -> tuple[ClientAuthenticator, ...]:
    """The secrets of a file with this text."""
    return parse_client_secrets("id", Secret(text), in_header=False)


class File:
    """A secret file that a test changes."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.reads = 0

    def read(self) -> tuple[ClientAuthenticator, ...]:
        """Its secrets now."""
        self.reads += 1
        if not self.text:
            raise OSError
        return secrets(self.text)


def source_of(
    endpoint: TokenEndpoint,
    text: str,
    reread: Callable[[], tuple[ClientAuthenticator, ...]] | None = None,
) -> Credential:
    """A source with the secrets of this text."""
    return Credential(
        endpoint=endpoint,
        settings=CredentialSettings(client_id="id"),
        platform="https://platform.test/r5",
        name="default",
        authenticators=secrets(text),
        reread=reread,
    )


def rereading(endpoint: TokenEndpoint, file: File) -> Credential:
    """A source as the application makes it."""
    return source_of(endpoint, file.text, file.read)


async def value(source: Credential) -> str:
    """The token that a source gets, or the code of the refusal."""
    try:
        return (await source.request()).access_token.reveal()
    except TokenRequestError as error:
        return f"{error.kind} {error.oauth_error}"


class TestTwoSecrets:
    """The file holds two, for the overlap."""

    async def test_the_sso_knows_only_the_old_one(
        self, sso: StrictSso, endpoint: TokenEndpoint
    ) -> None:
        """The new one is tried, the old one serves and is from then on tried first."""
        source = source_of(endpoint, "new\nold\n")
        assert [await value(source), await value(source)] == ["for-old", "for-old"]
        assert sso.shown == ["new", "old", "old"]

    async def test_the_sso_changes_over(self, sso: StrictSso, endpoint: TokenEndpoint) -> None:
        """When the SSO lets the old one go, the same request brings a token for the new one."""
        source = source_of(endpoint, "new\nold")
        await value(source)
        sso.takes = {"new"}
        assert [await value(source), await value(source)] == ["for-new", "for-new"]
        assert sso.shown == ["new", "old", "old", "new", "new"]

    async def test_a_covered_refusal_is_told(
        self, sso: StrictSso, endpoint: TokenEndpoint, caplog: pytest.LogCaptureFixture
    ) -> None:
        """That the first is refused is told with the token, and in the log, once; then no more."""
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

    async def test_the_sso_knows_both(self, sso: StrictSso, endpoint: TokenEndpoint) -> None:
        """The new one is used."""
        sso.takes = {"new", "old"}
        assert await value(source_of(endpoint, "new\nold")) == "for-new"
        assert sso.shown == ["new"]

    async def test_the_sso_knows_neither(self, sso: StrictSso, endpoint: TokenEndpoint) -> None:
        """Each is tried, the first once more, and the refusal is that of the first."""
        sso.takes = set()
        source = source_of(endpoint, "new\nold")
        sso.script(oauth_error("unauthorized_client", 401), oauth_error("invalid_client", 401))
        assert await value(source) == "refused unauthorized_client"
        assert sso.shown == ["new", "old", "new"]

    async def test_the_sso_changes_over_between_two_attempts(
        self, sso: StrictSso, endpoint: TokenEndpoint
    ) -> None:
        """The new one, refused a moment ago, is tried again when the old one is refused too."""
        sso.takes = {"new"}
        sso.script(oauth_error("invalid_client", 401))
        assert await value(source_of(endpoint, "new\nold")) == "for-new"
        assert sso.shown == ["new", "old", "new"]

    @pytest.mark.parametrize("answer", [status(503), status(429), oauth_error("invalid_scope")])
    async def test_not_a_matter_of_the_secret(
        self, sso: StrictSso, endpoint: TokenEndpoint, answer: ScriptedResponse
    ) -> None:
        """An SSO that fails, or refuses something else, is not shown another secret."""
        sso.script(answer)
        with pytest.raises(TokenRequestError):
            await source_of(endpoint, "new\nold").request()
        assert sso.shown == ["new"]

    async def test_the_store_key_is_that_of_the_secret_in_use(
        self, sso: StrictSso, endpoint: TokenEndpoint
    ) -> None:
        """Tokens are kept under the secret that brought them."""
        source = source_of(endpoint, "new\nold")
        await value(source)
        assert source.store_key == source_of(endpoint, "old").store_key


class TestChangedFile:
    """The file is changed while the gateway runs."""

    async def test_read_again_when_refused(self, sso: StrictSso, endpoint: TokenEndpoint) -> None:
        """A refused secret is replaced by that of the file, without a failed request."""
        source = rereading(endpoint, file := File("old"))
        await value(source)
        sso.takes, file.text = {"new"}, "new"
        assert [await value(source), await value(source)] == ["for-new", "for-new"]
        assert (sso.shown, file.reads) == (["old", "old", "new", "new"], 1)

    async def test_unchanged(self, sso: StrictSso, endpoint: TokenEndpoint) -> None:
        """A refused secret that is still the file's is not shown a second time."""
        sso.takes = set()
        source = rereading(endpoint, file := File("old"))
        assert await value(source) == "refused invalid_client"
        assert (sso.shown, file.reads) == (["old"], 1)

    async def test_unreadable(self, sso: StrictSso, endpoint: TokenEndpoint) -> None:
        """While the file cannot be read, the refusal stands."""
        sso.takes = set()
        source = rereading(endpoint, file := File("old"))
        file.text = ""
        assert await value(source) == "refused invalid_client"
        assert sso.shown == ["old"]

    async def test_changed_to_two(self, sso: StrictSso, endpoint: TokenEndpoint) -> None:
        """Both secrets of the changed file are tried."""
        source = rereading(endpoint, file := File("older"))
        file.text = "new\nold"
        assert await value(source) == "for-old"
        assert sso.shown == ["older", "new", "old"]

    async def test_sso_down(self, sso: StrictSso, endpoint: TokenEndpoint) -> None:
        """A failing SSO is no reason to read the file."""
        sso.script(status(500))
        source = rereading(endpoint, file := File("old"))
        assert await value(source) == "transient None"
        assert file.reads == 0


class TestSuccessor:
    """A reload makes a new source, which knows what the one before knew."""

    async def test_new_secret_is_right(self, sso: StrictSso, endpoint: TokenEndpoint) -> None:
        """The old one is let go as soon as the SSO took the new one."""
        before, after = rereading(endpoint, File("old")), rereading(endpoint, File("new"))
        await value(before)
        after.take_over(before)
        sso.takes = {"new"}
        assert await value(after) == "for-new"
        sso.takes = {"old"}
        assert await value(after) == "refused invalid_client"
        assert sso.shown == ["old", "new", "new"]

    async def test_new_secret_is_wrong(self, sso: StrictSso, endpoint: TokenEndpoint) -> None:
        """The old one stays in use until the SSO takes the new one."""
        before, after = rereading(endpoint, File("old")), rereading(endpoint, File("new"))
        await value(before)
        after.take_over(before)
        assert [await value(after), await value(after)] == ["for-old", "for-old"]
        sso.takes = {"new"}
        assert await value(after) == "for-new"
        assert sso.shown == ["old", "new", "old", "old", "old", "new"]

    async def test_second_secret_is_new(self, sso: StrictSso, endpoint: TokenEndpoint) -> None:
        """Of two secrets the new one is tried, though the other one works."""
        before, after = rereading(endpoint, File("old")), rereading(endpoint, File("new\nold"))
        await value(before)
        after.take_over(before)
        sso.takes = {"new", "old"}
        assert await value(after) == "for-new"
        assert sso.shown == ["old", "new"]

    async def test_unchanged(self, sso: StrictSso, endpoint: TokenEndpoint) -> None:
        """Of two secrets the one that works is still tried first."""
        before, after = (rereading(endpoint, File("new\nold")) for _ in range(2))
        await value(before)
        after.take_over(before)
        assert after.store_key == before.store_key
        assert await value(after) == "for-old"
        assert sso.shown == ["new", "old", "old"]


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
    def test_lines(self, text: str, secrets: list[str]) -> None:
        """A line is a secret as it stands; empty lines are none."""
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
    def test_more_than_two(self, read: Callable[[], object]) -> None:
        """Three secrets are a mistake, which is reported."""
        with pytest.raises(ClientKeyError, match="more than two"):
            read()
