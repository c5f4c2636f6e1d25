"""The rows of the table of authorization servers: what each is asked through a gateway.

`test_NAME.py` has two classes, each with its `server`:

    class TestClients(ClientRows):
        server = Keycloak

    class TestSignIn(SignInRows):
        server = Keycloak

A row is the name of its test behind `test_`. One that is in the server's `not_offered` passes as
such, without being asked.
"""

from __future__ import annotations

import itertools
import json
import math
from typing import ClassVar

import pytest

from tests.interop import table
from tests.interop.sso.client_story import ClientStory, Outage, Steady
from tests.interop.sso.front import RETRY_AFTER, TokenRequest
from tests.interop.sso.server import SsoServer
from tests.interop.sso.sign_in_story import RENEWALS, SignInStory
from tests.interop.sso.stage import Answer, Stage

# Seconds after a token request. A busy machine may need longer to serve the callers of the start.
_EARLIEST_RENEWAL = 1.0


def _assert_steady(steady: Steady) -> bool:
    """Check a credential while all is well; return whether the SSO takes its second form alone."""
    assert {each.status for each in steady.at_start} == {200}
    assert set(steady.statuses) == {200}
    refused = [each for each in steady.requests if each.status != 200]
    accepted = [each.at for each in steady.requests if each.status == 200]
    assert steady.requests[: len(refused)] == refused
    assert len(refused) <= 1
    assert min(b - a for a, b in itertools.pairwise(accepted)) > _EARLIEST_RENEWAL
    return bool(refused)


def _assert_refused(answer: Answer, requests: list[TokenRequest]) -> None:
    """Check the response to a client that the SSO refuses: what it is, and what to look at."""
    assert (answer.status, answer.reason) in ((502, "token-refused"), (503, "sso-unavailable"))
    if answer.status == 502:
        assert "to check: " in answer.diagnostics
        assert "secret" in answer.diagnostics
        assert len(requests) in (1, 2)
    else:
        # Without an OAuth error it may be a firewall, which is asked again as in an outage.
        assert "or a wrong client_id or secret" in answer.diagnostics


def _assert_outage(outage: Outage) -> None:
    """Check that the token served to its end, that callers learned why, and were served again."""
    assert outage.served > 0
    assert (outage.failure.status, outage.failure.reason) == (503, "sso-unavailable")
    assert outage.failure.outcome["resourceType"] == "OperationOutcome"
    assert outage.failure.retry_after is not None
    assert outage.again.status == 200
    assert outage.requests[-1].status == 200


class ClientRows:
    """Clients without users."""

    server: ClassVar[type[SsoServer]]

    def _method(self, story: ClientStory, method: str, request: pytest.FixtureRequest) -> None:
        steady: Steady = story.steady[method]["callers"]
        if _assert_steady(steady):
            table.note(request.node, "in its second form, after one refusal at the start")
        basic = method == "client_secret_basic"
        assert {each.is_basic for each in steady.requests} == {basic}

    @pytest.mark.row("client_secret_basic")
    def test_client_secret_basic(
        self, client_story: ClientStory, request: pytest.FixtureRequest
    ) -> None:
        """50 callers at the start cost one token request, and so does each renewal."""
        self._method(client_story, "client_secret_basic", request)

    @pytest.mark.row("client_secret_post")
    def test_client_secret_post(
        self, client_story: ClientStory, request: pytest.FixtureRequest
    ) -> None:
        """50 callers at the start cost one token request, and so does each renewal."""
        self._method(client_story, "client_secret_post", request)

    @pytest.mark.row("private_key_jwt")
    def test_private_key_jwt(
        self, client_story: ClientStory, request: pytest.FixtureRequest
    ) -> None:
        """50 callers at the start cost one token request, and so does each renewal."""
        self._method(client_story, "private_key_jwt", request)

    @pytest.mark.row("secret changed at the SSO only")
    def test_changed_secret(
        self, client_story: ClientStory, request: pytest.FixtureRequest
    ) -> None:
        """The refusal names what to check and costs few requests; a corrected file is enough."""
        lane = client_story.rotation
        _assert_refused(*lane["refused"])
        assert lane["corrected"].status == 200
        table.note(request.node, _again(lane["seconds"]))

    @pytest.mark.row("two secrets in the file")
    def test_two_secrets(self, client_story: ClientStory) -> None:
        """No request fails while the SSO exchanges the secret, and a wrong one is tried once."""
        lane = client_story.rotation
        first = [each.status == 200 for each in lane["requests of two secrets"]]
        assert first == [False, True]
        statuses, requests = lane["exchanged"]
        assert set(statuses) == {200}
        # At most one before each token, and three at a renewal between the SSO's change and the
        # file's, when no secret is right.
        accepted = sum(each.status == 200 for each in requests)
        assert len(requests) - accepted <= accepted + 3

    @pytest.mark.row("client disabled, and enabled")
    def test_disabled_client(self, client_story: ClientStory) -> None:
        """Callers learn that the SSO refuses the client, which serves again once it is enabled."""
        lane = client_story.disabled
        _assert_refused(*lane["refused"])
        assert lane["again"].status == 200

    def _fault(self, story: ClientStory, fault: str, request: pytest.FixtureRequest) -> Outage:
        outage: Outage = story.faults[fault]["outage"]
        _assert_outage(outage)
        table.note(request.node, _again(outage.seconds_again))
        return outage

    @pytest.mark.row("token endpoint answers 429")
    def test_fault_429(self, client_story: ClientStory, request: pytest.FixtureRequest) -> None:
        """The pause that the SSO asks for is kept."""
        requests = self._fault(client_story, "429", request).requests
        pauses = [b.at - a.at for a, b in itertools.pairwise(requests)]
        assert min(pauses) >= RETRY_AFTER

    @pytest.mark.row("token endpoint answers 503")
    def test_fault_503(self, client_story: ClientStory, request: pytest.FixtureRequest) -> None:
        """The token serves to its end, then 503, then all is well again."""
        self._fault(client_story, "503", request)

    @pytest.mark.row("token endpoint answers HTML with 400")
    def test_fault_html_400(
        self, client_story: ClientStory, request: pytest.FixtureRequest
    ) -> None:
        """It is no refusal of the client."""
        self._fault(client_story, "HTML 400", request)

    @pytest.mark.row("token endpoint answers HTML with 403")
    def test_fault_html_403(
        self, client_story: ClientStory, request: pytest.FixtureRequest
    ) -> None:
        """It is no refusal of the client."""
        self._fault(client_story, "HTML 403", request)

    @pytest.mark.row("token endpoint redirects")
    def test_fault_redirect(
        self, client_story: ClientStory, request: pytest.FixtureRequest
    ) -> None:
        """The redirect is not followed."""
        self._fault(client_story, "redirect", request)

    @pytest.mark.row("token endpoint cuts the connection")
    def test_fault_cut(self, client_story: ClientStory, request: pytest.FixtureRequest) -> None:
        """The token serves to its end, then 503, then all is well again."""
        self._fault(client_story, "cut", request)

    @pytest.mark.row("token endpoint does not answer")
    def test_fault_no_answer(
        self, client_story: ClientStory, request: pytest.FixtureRequest
    ) -> None:
        """The token serves to its end, then 503, then all is well again."""
        self._fault(client_story, "no answer", request)

    @pytest.mark.row("SSO off for a while")
    def test_off(self, client_story: ClientStory, request: pytest.FixtureRequest) -> None:
        """The token serves to its end, then 503, then all is well again."""
        outage = client_story.off["outage"]
        _assert_outage(outage)
        table.note(request.node, _again(outage.seconds_again))

    @pytest.mark.row("check and doctor tell the truth")
    def test_doctor(self, client_story: ClientStory, request: pytest.FixtureRequest) -> None:
        """Well, wrong secret, wrong scope, SSO off, client disabled: `doctor` names the fault."""
        disabled = client_story.disabled
        seen = {
            "well": disabled["doctor when well"],
            "wrong secret": client_story.rotation["doctor"],
            "disabled": disabled["doctor when disabled"],
            "off": client_story.off["doctor"],
        }
        for check, doctor in seen.values():
            assert check.code == 0, check.out + check.err
            assert "token" in doctor.out
        assert seen["well"][1].code == 0, seen["well"][1].out
        for name in ("wrong secret", "disabled"):
            assert seen[name][1].code == 1
            assert "secret" in seen[name][1].out
        assert seen["off"][1].code == 1
        _, scope = disabled["doctor of the scope"]
        if scope.code == 0:
            table.note(request.node, "takes any scope")
        else:
            assert "scope" in scope.out

    @pytest.mark.row("a load balancer's cookie")
    def test_cookie(self, client_story: ClientStory, stage: Stage) -> None:
        """No token request of a client sends a cookie that the SSO has set."""
        _told(client_story)
        found = [e for e in stage.front.token_requests if e.grant_type == "client_credentials"]
        assert found
        assert not any(each.has_cookie for each in found)

    @pytest.mark.row("no token, secret or code in logs, audit, metrics, status")
    def test_secrecy(self, client_story: ClientStory, stage: Stage, said: dict[str, str]) -> None:
        """Nothing that must stay secret is in what the gateways said, at level debug."""
        _told(client_story)
        _assert_silent(stage, said)


class SignInRows:
    """Users of a browser."""

    server: ClassVar[type[SsoServer]]

    @pytest.mark.row("sign-in, back to the page asked for")
    def test_sign_in(self, sign_in_story: SignInStory) -> None:
        """The SSO's pages lead back to the page that the user had asked for."""
        assert '"resourceType":"Patient"' in sign_in_story.lane["landed"]["text"]

    @pytest.mark.row("/auth/session")
    def test_session(self, sign_in_story: SignInStory) -> None:
        """It says whether the user is signed in, and who it is."""
        lane = sign_in_story.lane
        before, after = (json.loads(lane[each]["text"]) for each in ("no session", "session"))
        assert before["signed_in"] is False
        assert (after["signed_in"], after["user"]) == (True, self.server.user)

    @pytest.mark.row("XHR without a session")
    def test_xhr(self, sign_in_story: SignInStory) -> None:
        """It gets 401, and no redirect to the SSO."""
        answer = sign_in_story.lane["XHR without session"]
        assert (answer["status"], answer["reason"]) == (401, "caller-unauthenticated")

    @pytest.mark.row("two tabs")
    def test_two_tabs(self, sign_in_story: SignInStory) -> None:
        """The second tab needs no sign-in."""
        opened = sign_in_story.lane["second tab"]
        assert opened["status"] == 200
        assert opened["url"].endswith("/fhir/Patient/2")

    @pytest.mark.row("refresh, once for two tabs")
    def test_refresh(self, sign_in_story: SignInStory) -> None:
        """While both tabs read, each renewal is one request, and no read fails."""
        statuses, requests, used = sign_in_story.lane["refresh"]
        for tab in statuses:
            assert set(tab) == {200}
        # No token was asked for in vain.
        assert RENEWALS <= len(requests) <= used
        assert {each.status for each in requests} == {200}
        assert not any(each.has_cookie for each in requests if "refresh_token" in each.keys)

    @pytest.mark.row("POST without X-Requested-With")
    def test_forgery(self, sign_in_story: SignInStory) -> None:
        """It is refused, and one with it is not."""
        lane = sign_in_story.lane
        assert lane["forged POST"]["status"] == 403
        assert lane["forged POST"]["reason"] == "caller-forbidden"
        assert lane["POST"]["status"] == 200

    @pytest.mark.row("end of an idle session")
    def test_idle(self, sign_in_story: SignInStory) -> None:
        """A session that rests for longer than `login.idle_lifetime` has ended."""
        assert sign_in_story.lane["idle"] == (200, 401)

    @pytest.mark.row("sign-out at the gateway")
    def test_sign_out(self, sign_in_story: SignInStory) -> None:
        """The session ends here, and at the SSO, which asks for the password then."""
        answer, status = sign_in_story.lane["signed out"]
        assert (answer["signed_in"], status) == (False, 401)
        assert "end_session_url" in answer
        assert sign_in_story.lane["asked for the password"]

    @pytest.mark.row("sign-out at the SSO")
    def test_sign_out_at_the_sso(
        self, sign_in_story: SignInStory, request: pytest.FixtureRequest
    ) -> None:
        """The gateway's session ends too."""
        status, logouts, took = sign_in_story.lane["signed out at the SSO"]
        assert status == 401
        by_sso = [each for each in logouts if each["outcome"] == "sso"]
        assert bool(by_sso) == self.server.has_back_channel
        how = "by the back channel" if by_sso else "at the next refresh"
        table.note(request.node, f"{how}, within {math.ceil(took)} s")

    @pytest.mark.row("key rotation at the SSO")
    def test_key_rotation(self, sign_in_story: SignInStory) -> None:
        """The next sign-in passes."""
        assert '"resourceType":"Patient"' in sign_in_story.lane["another key"]["text"]

    @pytest.mark.row("no token in the browser")
    def test_browser(self, sign_in_story: SignInStory, stage: Stage) -> None:
        """Pages, storage and traffic hold no token, and scripts cannot read the cookie."""
        (cookie,) = sign_in_story.lane["cookies"]
        assert cookie["httpOnly"]
        seen = json.dumps(sign_in_story.lane["browser"])
        assert "Patient" in seen
        # The code passes through, in the address to which the SSO sends the browser.
        secrets = stage.secrets().items()
        found = {name for value, name in secrets if name != "code" and value in seen}
        assert sorted(found) == []

    @pytest.mark.row("the audit shows who")
    def test_audit(self, sign_in_story: SignInStory) -> None:
        """The sign-in and what follows have the user's name."""
        lane = sign_in_story.lane
        assert (lane["audit"]["user"], lane["audit"]["outcome"]) == (self.server.user, "success")
        assert self.server.user in [each.get("user") for each in lane["audit of exchanges"]]

    @pytest.mark.row("doctor's checks of the sign-in")
    def test_doctor_of_the_sign_in(self, sign_in_story: SignInStory) -> None:
        """They find nothing where users can sign in."""
        check, doctor = sign_in_story.lane["doctor"]
        assert check.code == 0, check.out + check.err
        assert doctor.code == 0, doctor.out
        assert "login page" in doctor.out

    @pytest.mark.row("no token, secret or code in logs, audit, metrics, status (sign-in)")
    def test_secrecy_of_the_sign_in(
        self, sign_in_story: SignInStory, stage: Stage, said: dict[str, str]
    ) -> None:
        """Nothing that must stay secret is in what the gateway said, at level debug."""
        assert sign_in_story.lane["browser"]
        _assert_silent(stage, said)


def _again(seconds: float) -> str:
    return f"again within {math.ceil(seconds)} s"


def _told(story: ClientStory) -> None:
    assert any(each.facts for each in story.steady.values()), "the story has not begun"


def _assert_silent(stage: Stage, said: dict[str, str]) -> None:
    secrets = stage.secrets()
    assert secrets
    assert any(said.values())
    found = {
        (where, name)
        for where, text in said.items()
        for value, name in secrets.items()
        if value in text
    }
    assert sorted(found) == []
