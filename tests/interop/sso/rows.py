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
from tests.interop.sso.client_scenario import ClientScenario, Outage, Steady
from tests.interop.sso.front import RETRY_AFTER, TokenRequest
from tests.interop.sso.server import SsoServer
from tests.interop.sso.sign_in_scenario import RENEWALS, SignInScenario
from tests.interop.sso.stage import Answer, Stage

# Seconds after a token request. A busy machine may need longer to serve the callers of the start.
_EARLIEST_RENEWAL = 1.0


def _assert_steady(steady: Steady) -> bool:
    """Check a credential without faults. Return whether the SSO accepts its second form only."""
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

    def _method(
        self, scenario: ClientScenario, method: str, request: pytest.FixtureRequest
    ) -> None:
        steady: Steady = scenario.steady[method]["callers"]
        if _assert_steady(steady):
            table.note(request.node, "in its second form, after one refusal at the start")
        basic = method == "client_secret_basic"
        assert {each.is_basic for each in steady.requests} == {basic}

    @pytest.mark.row("client_secret_basic")
    def test_client_secret_basic(
        self, client_scenario: ClientScenario, request: pytest.FixtureRequest
    ) -> None:
        self._method(client_scenario, "client_secret_basic", request)

    @pytest.mark.row("client_secret_post")
    def test_client_secret_post(
        self, client_scenario: ClientScenario, request: pytest.FixtureRequest
    ) -> None:
        self._method(client_scenario, "client_secret_post", request)

    @pytest.mark.row("private_key_jwt")
    def test_private_key_jwt(
        self, client_scenario: ClientScenario, request: pytest.FixtureRequest
    ) -> None:
        self._method(client_scenario, "private_key_jwt", request)

    @pytest.mark.row("secret changed at the SSO only")
    def test_changed_secret(
        self, client_scenario: ClientScenario, request: pytest.FixtureRequest
    ) -> None:
        part = client_scenario.rotation
        _assert_refused(*part["refused"])
        assert part["corrected"].status == 200
        table.note(request.node, _recovery_note(part["seconds"]))

    @pytest.mark.row("two secrets in the file")
    def test_two_secrets(self, client_scenario: ClientScenario) -> None:
        part = client_scenario.rotation
        first = [each.status == 200 for each in part["requests of two secrets"]]
        assert first == [False, True]
        statuses, requests = part["exchanged"]
        assert set(statuses) == {200}
        # At most one before each token, and three at a renewal between the SSO's change and the
        # file's, when no secret is right.
        accepted = sum(each.status == 200 for each in requests)
        assert len(requests) - accepted <= accepted + 3

    @pytest.mark.row("client disabled, and enabled")
    def test_disabled_client(self, client_scenario: ClientScenario) -> None:
        part = client_scenario.disabled
        _assert_refused(*part["refused"])
        assert part["again"].status == 200

    def _fault(
        self, scenario: ClientScenario, fault: str, request: pytest.FixtureRequest
    ) -> Outage:
        outage: Outage = scenario.faults[fault]["outage"]
        _assert_outage(outage)
        table.note(request.node, _recovery_note(outage.seconds_again))
        return outage

    @pytest.mark.row("token endpoint answers 429")
    def test_fault_429(
        self, client_scenario: ClientScenario, request: pytest.FixtureRequest
    ) -> None:
        requests = self._fault(client_scenario, "429", request).requests
        pauses = [b.at - a.at for a, b in itertools.pairwise(requests)]
        assert min(pauses) >= RETRY_AFTER

    @pytest.mark.parametrize(
        "fault",
        [
            pytest.param(name, marks=pytest.mark.row(f"token endpoint {what}"))
            for name, what in (
                ("503", "answers 503"),
                ("HTML 400", "answers HTML with 400"),
                ("HTML 403", "answers HTML with 403"),
                ("redirect", "redirects"),
                ("cut", "cuts the connection"),
                ("no answer", "does not answer"),
            )
        ],
    )
    def test_fault(
        self, client_scenario: ClientScenario, fault: str, request: pytest.FixtureRequest
    ) -> None:
        self._fault(client_scenario, fault, request)

    @pytest.mark.row("SSO off for a while")
    def test_off(self, client_scenario: ClientScenario, request: pytest.FixtureRequest) -> None:
        outage = client_scenario.off["outage"]
        _assert_outage(outage)
        table.note(request.node, _recovery_note(outage.seconds_again))

    @pytest.mark.row("check and doctor tell the truth")
    def test_doctor(self, client_scenario: ClientScenario, request: pytest.FixtureRequest) -> None:
        disabled = client_scenario.disabled
        seen = {
            "well": disabled["doctor when well"],
            "wrong secret": client_scenario.rotation["doctor"],
            "disabled": disabled["doctor when disabled"],
            "off": client_scenario.off["doctor"],
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
    def test_cookie(self, client_scenario: ClientScenario, stage: Stage) -> None:
        _assert_begun(client_scenario)
        found = [e for e in stage.front.token_requests if e.grant_type == "client_credentials"]
        assert found
        assert not any(each.has_cookie for each in found)

    @pytest.mark.row("no token, secret or code in logs, audit, metrics, status")
    def test_secrecy(
        self, client_scenario: ClientScenario, stage: Stage, operator_output: dict[str, str]
    ) -> None:
        _assert_begun(client_scenario)
        _assert_no_secrets(stage, operator_output)


class SignInRows:
    """Users of a browser."""

    server: ClassVar[type[SsoServer]]

    @pytest.mark.row("sign-in, back to the page asked for")
    def test_sign_in(self, sign_in_scenario: SignInScenario) -> None:
        assert '"resourceType":"Patient"' in sign_in_scenario.part["landed"]["text"]

    @pytest.mark.row("/auth/session")
    def test_session(self, sign_in_scenario: SignInScenario) -> None:
        part = sign_in_scenario.part
        before, after = (json.loads(part[each]["text"]) for each in ("no session", "session"))
        assert before["signed_in"] is False
        assert (after["signed_in"], after["user"]) == (True, self.server.user)

    @pytest.mark.row("XHR without a session")
    def test_xhr(self, sign_in_scenario: SignInScenario) -> None:
        answer = sign_in_scenario.part["XHR without session"]
        assert (answer["status"], answer["reason"]) == (401, "caller-unauthenticated")

    @pytest.mark.row("two tabs")
    def test_two_tabs(self, sign_in_scenario: SignInScenario) -> None:
        opened = sign_in_scenario.part["second tab"]
        assert opened["status"] == 200
        assert opened["url"].endswith("/fhir/Patient/2")

    @pytest.mark.row("refresh, once for two tabs")
    def test_refresh(self, sign_in_scenario: SignInScenario) -> None:
        statuses, requests, used = sign_in_scenario.part["refresh"]
        assert [set(tab) for tab in statuses] == [{200}] * 3
        # Every token that was requested was also used.
        assert RENEWALS <= len(requests) <= used
        assert {each.status for each in requests} == {200}
        assert not any(each.has_cookie for each in requests if "refresh_token" in each.keys)

    @pytest.mark.row("POST without X-Requested-With")
    def test_forgery(self, sign_in_scenario: SignInScenario) -> None:
        part = sign_in_scenario.part
        assert part["forged POST"]["status"] == 403
        assert part["forged POST"]["reason"] == "caller-forbidden"
        assert part["POST"]["status"] == 200

    @pytest.mark.row("end of an idle session")
    def test_idle(self, sign_in_scenario: SignInScenario) -> None:
        assert sign_in_scenario.part["idle"] == (200, 401)

    @pytest.mark.row("sign-out at the gateway")
    def test_sign_out(self, sign_in_scenario: SignInScenario) -> None:
        answer, status = sign_in_scenario.part["signed out"]
        assert (answer["signed_in"], status) == (False, 401)
        assert "end_session_url" in answer
        assert sign_in_scenario.part["asked for the password"]

    @pytest.mark.row("sign-out at the SSO")
    def test_sign_out_at_the_sso(
        self, sign_in_scenario: SignInScenario, request: pytest.FixtureRequest
    ) -> None:
        status, logouts, took = sign_in_scenario.part["signed out at the SSO"]
        assert status == 401
        by_sso = [each for each in logouts if each["outcome"] == "sso"]
        assert bool(by_sso) == self.server.has_back_channel
        how = "by the back channel" if by_sso else "at the next refresh"
        table.note(request.node, f"{how}, within {math.ceil(took)} s")

    @pytest.mark.row("key rotation at the SSO")
    def test_key_rotation(self, sign_in_scenario: SignInScenario) -> None:
        assert '"resourceType":"Patient"' in sign_in_scenario.part["another key"]["text"]

    @pytest.mark.row("no token in the browser")
    def test_browser(self, sign_in_scenario: SignInScenario, stage: Stage) -> None:
        (cookie,) = sign_in_scenario.part["cookies"]
        assert cookie["httpOnly"]
        seen = json.dumps(sign_in_scenario.part["browser"])
        assert "Patient" in seen
        # The code passes through, in the address to which the SSO sends the browser.
        secrets = stage.secrets().items()
        found = {name for value, name in secrets if name != "code" and value in seen}
        assert sorted(found) == []

    @pytest.mark.row("the audit shows who")
    def test_audit(self, sign_in_scenario: SignInScenario) -> None:
        part = sign_in_scenario.part
        assert (part["audit"]["user"], part["audit"]["outcome"]) == (self.server.user, "success")
        assert self.server.user in [each.get("user") for each in part["audit of exchanges"]]

    @pytest.mark.row("doctor's checks of the sign-in")
    def test_doctor_of_the_sign_in(self, sign_in_scenario: SignInScenario) -> None:
        check, doctor = sign_in_scenario.part["doctor"]
        assert check.code == 0, check.out + check.err
        assert doctor.code == 0, doctor.out
        assert "login page" in doctor.out

    @pytest.mark.row("no token, secret or code in logs, audit, metrics, status (sign-in)")
    def test_secrecy_of_the_sign_in(
        self, sign_in_scenario: SignInScenario, stage: Stage, operator_output: dict[str, str]
    ) -> None:
        assert sign_in_scenario.part["browser"]
        _assert_no_secrets(stage, operator_output)


def _recovery_note(seconds: float) -> str:
    return f"again within {math.ceil(seconds)} s"


def _assert_begun(scenario: ClientScenario) -> None:
    assert any(each.facts for each in scenario.steady.values()), "the scenario has not begun"


def _assert_no_secrets(stage: Stage, operator_output: dict[str, str]) -> None:
    secrets = stage.secrets()
    assert secrets
    assert any(operator_output.values())
    found = {
        (where, name)
        for where, text in operator_output.items()
        for value, name in secrets.items()
        if value in text
    }
    assert sorted(found) == []
