"""The platform's security element is removed from its CapabilityStatement, and nothing else."""

from __future__ import annotations

import json

import pytest

from gateway.fhir.capability_statement import SecurityRemovingRewriter, remove_rest_security
from gateway.fhir.links.link_map import LinkMap
from gateway.fhir.links.rewriting import rewriter_for
from tests.fhir.bodies import spelled_out

SECURITY = (
    '"security" : {"cors":true,"service":[{"coding":[{"code":"SMART-on-FHIR"}]}],"extension":[{'
    '"url":"http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris",'
    '"extension":[{"url":"token","valueUri":"https://sso.dhp.uz/oauth/token"}]}],'
    '"description":"Ask the \\"SSO\\" for a token }]"}'
)
REST = [
    ('{"mode":"server",%s,"resource":[]}', '{"mode":"server","resource":[]}'),
    ('{%s, "mode":"server"}', '{"mode":"server"}'),
    ('{"mode":"server" , %s }', '{"mode":"server" }'),
    ("{ %s }", "{ }"),
    ('{"documentation":"\\"security\\":{}","mode":"server",\n  %s\n}', None),
]


@pytest.mark.parametrize("spelled", [False, True])
@pytest.mark.parametrize(("given", "expected"), REST)
def test_security_is_removed_from_json(given: str, expected: str | None, *, spelled: bool) -> None:
    """Wherever and however it is written; the rest is JSON with each number as it was."""
    frame = '{"resourceType":"CapabilityStatement","x":1.10,"rest":[%s,%s]}'
    body = (frame % (given % SECURITY, given % SECURITY)).encode()
    cut = remove_rest_security(spelled_out(body, "security") if spelled else body, xml=False)
    rests = json.loads(cut)["rest"]
    assert len(rests) == 2
    assert all("security" not in rest for rest in rests)
    assert b"sso.dhp.uz" not in cut
    assert b'"x":1.10' in cut
    if expected is None:
        assert all(rest["documentation"] == '"security":{}' for rest in rests)
    else:
        assert "".join(expected.split()) in "".join(cut.decode().split())


def test_a_statement_without_security_is_unchanged() -> None:
    body = b'{"resourceType":"CapabilityStatement","rest":[ {"documentation":"security"} ]}'
    assert remove_rest_security(body, xml=False) == body


@pytest.mark.parametrize("tag", ["security", "f:security"])
def test_security_is_removed_from_xml(tag: str) -> None:
    """Also under a prefix."""
    before, after = "<rest><mode value='server'/>", "<resource/></rest>"
    inside = '<extension url="oauth-uris"/><service/>'
    body = f'{before}<{tag} id="a">{inside}</{tag}>{after}'.encode()
    assert remove_rest_security(body, xml=True) == (before + after).encode()
    assert remove_rest_security(f"{before}<{tag}/>{after}".encode(), xml=True).startswith(b"<rest>")


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_the_result_does_not_depend_on_chunks(size: int) -> None:
    links = LinkMap("https://fhir.dhp.uz", "http://gateway/fhir")
    body = (
        '{"resourceType":"CapabilityStatement","implementation":{"url":"https://fhir.dhp.uz"},'
        f'"rest":[{{"mode":"server",{SECURITY}}}]}}'
    ).encode()
    rewriter = rewriter_for("application/json", links, "to-gateway")
    statement = SecurityRemovingRewriter(rewriter, xml=False)
    pieces = [statement.feed(body[at : at + size]) for at in range(0, len(body), size)]
    result = json.loads(b"".join([*pieces, statement.finish()]))
    assert result["implementation"] == {"url": "http://gateway/fhir"}
    assert result["rest"] == [{"mode": "server"}]
    assert statement.rewritten == 1
