"""URLs in XML bodies: the same elements as in JSON, and no other octet changes."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fhir.links.link_map import LinkMap
from gateway.fhir.links.rewriting import rewriter_for
from gateway.fhir.links.xml_links import XmlRewriter

PLATFORM = "https://playground.dhp.uz/fhir"
GATEWAY = "http://127.0.0.1:8080/fhir"
LINKS = LinkMap(PLATFORM, GATEWAY)
NS = 'xmlns="http://hl7.org/fhir"'
REF = f'<reference value="{PLATFORM}/Patient/1"/>'


def run(body, *, size=None, direction="to-gateway"):
    """Return the rewritten body, fed in chunks of `size` octets, and the two counts."""
    raw = body if isinstance(body, bytes) else body.encode()
    rewriter = rewriter_for("application/fhir+xml", LINKS, direction)
    step = size or len(raw) or 1
    pieces = [rewriter.feed(raw[at : at + step]) for at in range(0, len(raw), step)]
    return b"".join([*pieces, rewriter.finish()]), rewriter.rewritten, rewriter.unrewritten


def swapped(body):
    raw = body if isinstance(body, bytes) else body.encode()
    return raw.replace(PLATFORM.encode(), GATEWAY.encode())


LISTED = {
    "searchset": f"""<?xml version="1.0" encoding="UTF-8"?>
<!-- a page --><Bundle {NS}><type value="searchset"/>
<link><relation value="next"/><url value="{PLATFORM}?a=1&amp;_page=2"/></link>
<entry><fullUrl value='{PLATFORM}/Patient/1'/><resource><Patient><photo><url
 value = "{PLATFORM}/Binary/1" /></photo></Patient></resource><response><location
 value="{PLATFORM}/Patient/1/_history/1"/></response></entry></Bundle>""",
    "prefix": f'<f:Basic xmlns:f="http://hl7.org/fhir"><f:subject>'
    f'<f:reference id="a" value="{PLATFORM}/Patient/1"></f:reference></f:subject></f:Basic>',
    "contained": f"<Basic {NS}><contained><Basic><subject>{REF}</subject></Basic></contained>"
    f"<extension url='x'><valueReference>{REF}</valueReference></extension></Basic>",
    "parameters": f'<Parameters {NS}><parameter><valueUri value="{PLATFORM}/x"/><part><resource>'
    f"<Basic><subject>{REF}</subject></Basic></resource></part></parameter></Parameters>",
    "capabilities": f'<CapabilityStatement {NS}><implementation><url value="{PLATFORM}"/>'
    "</implementation></CapabilityStatement>",
    "expansion": f'<ValueSet {NS}><expansion><next value="{PLATFORM}/x"/></expansion></ValueSet>',
    "unsigned collection": f'<Bundle {NS}><type value="collection"/><entry><fullUrl'
    f' value="{PLATFORM}/Patient/1"/></entry><!-- - -> --><?pi ? > ?>'
    """<a b="/>" c='>"' /><d></d ></Bundle>""",
    "among dull ones": f"<Basic {NS}><a></a><b>text</b><!-- - -- ><a> --><?p ? <a> ?><contained>"
    f"<Basic></Basic></contained><subject><a ></a >{REF}</subject></Basic>",
    "unsigned provenance": f"<Provenance {NS}><target>{REF}</target></Provenance>",
}


@pytest.mark.parametrize("body", LISTED.values(), ids=LISTED.keys())
def test_urls_in_listed_elements_are_rewritten(body):
    """Every absolute platform URL in these bodies is in a listed element."""
    assert run(body) == (swapped(body), body.count(PLATFORM), 0)


NEVER = {
    "document": f'<Bundle {NS}><type value="document"/><entry><fullUrl value="{PLATFORM}/X/1"/>'
    f"<resource><Basic><subject>{REF}</subject></Basic></resource></entry></Bundle>",
    "signed bundle": f'<Bundle {NS}><type value="collection"/><entry><fullUrl'
    f' value="{PLATFORM}/Patient/1"/></entry><signature><who>{REF}</who></signature></Bundle>',
    "signed provenance": f"<Provenance {NS}><target>{REF}</target><signature><who>{REF}</who>"
    "</signature></Provenance>",
    "prefixed document": f'<f:Bundle xmlns:f="http://hl7.org/fhir"><f:type value="document"/>'
    f'<f:entry><f:fullUrl value="{PLATFORM}/X/1"/></f:entry></f:Bundle>',
    "canonicals": f'<ValueSet {NS}><meta><profile value="{PLATFORM}/a"/></meta><extension'
    f' url="{PLATFORM}/b"/><url value="{PLATFORM}/c"/></ValueSet>',
    "narrative": f'<Patient {NS}><text><div xmlns="http://www.w3.org/1999/xhtml"><a'
    f' href="{PLATFORM}/x">{PLATFORM}/y</a><subject>{REF}</subject></div></text></Patient>',
    "comment": f"<Basic {NS}><!-- <subject>{REF}</subject> --></Basic>",
    "section": f"<Basic {NS}><![CDATA[<subject>{REF}</subject>]]></Basic>",
    "other attribute": f'<Basic {NS}><subject><reference id="{PLATFORM}/Patient/1" value="x"/>'
    "</subject></Basic>",
    "outcome": f"<OperationOutcome {NS}><issue><subject>{REF}</subject></issue></OperationOutcome>",
    "document type": f'<!DOCTYPE x [<!ENTITY a "b">]><Basic {NS}><subject>{REF}</subject></Basic>',
    "wide": f'<?xml version="1.0" encoding="UTF-16"?><Basic {NS}><subject>{REF}</subject></Basic>',
    "no resource": f"<diff><subject>{REF}</subject></diff>",
}


@pytest.mark.parametrize("body", NEVER.values(), ids=NEVER.keys())
def test_signed_bodies_and_other_text_are_unchanged(body):
    assert run(body)[:2] == (body.encode(), 0)


def test_character_references_in_urls_are_read():
    """The rest of the URL is unchanged."""
    body = f'<Bundle {NS}><type value="searchset"/><link><url value="%s"/></link></Bundle>'
    written = "https:&#x2F;&#47;pl&#97;yground.dhp.uz/fhir/Patient?a=1&amp;b=&quot;&#x41;"
    expected = f"{GATEWAY}/Patient?a=1&amp;b=&quot;&#x41;"
    assert run(body % written)[0] == (body % expected).encode()


def test_a_byte_order_mark_and_other_octets_are_unchanged():
    """Any encoding that contains ASCII."""
    for lead, text in ((b"\xef\xbb\xbf", "Али".encode()), (b"", "Али".encode("cp1251"))):
        body = lead + f'<Basic {NS}><note value="'.encode() + text
        body += f'"/><subject>{REF}</subject></Basic>'.encode()
        assert run(body) == (swapped(body), 1, 0)


def test_utf_16_passes():
    body = LISTED["contained"].encode("utf-16")
    for size in (None, 1):
        assert run(body, size=size) == (body, 0, 0)


def test_a_long_attribute_passes_and_what_follows_is_rewritten():
    """As of an inline attachment."""
    long = "A" * 100_000
    tags = (f'<data value="{long}"/>', f"<data value='>/{long}' ></data>", f"<!--{long}-->")
    for tag in tags:
        link = f'<link><url value="{PLATFORM}"/></link>'
        body = f'<Bundle {NS}><type value="collection"/>{link}{tag}{link}</Bundle>'
        for size in (None, 1000, 70_001):
            assert run(body, size=size) == (swapped(body), 2, 0)


def test_a_tag_too_long_for_a_url_passes():
    body = f'<Patient {NS}><photo><url value="{PLATFORM}/{"x" * 70_000}"/></photo></Patient>'
    for size in (None, 1000):
        assert run(body, size=size)[:2] == (body.encode(), 0)


def test_nesting_beyond_the_limit_passes_and_what_follows_is_rewritten():
    deep = "<a>" * 20_000 + f"<subject>{REF}</subject>" + "</a>" * 20_000
    body = f"<Basic {NS}>{deep}<subject>%s</subject></Basic>"
    expected = (body % REF.replace(PLATFORM, GATEWAY)).encode()
    assert run(body % REF)[0] == expected
    assert run(body % REF, size=1000)[0] == expected


def test_the_wait_for_a_signature_has_a_limit():
    """A collection with links pending for longer is unchanged."""
    body = LISTED["unsigned collection"].replace(
        "</Bundle>", "<total value='1'/>" * 99 + "</Bundle>"
    )
    rewriter = XmlRewriter(LINKS.responses, hold_limit=500)
    assert rewriter.feed(body.encode()) + rewriter.finish() == body.encode()
    assert rewriter.rewritten == 0


def test_a_request_is_mapped_to_the_platform():
    for body in LISTED.values():
        assert run(swapped(body), direction="to-platform")[0] == body.encode()


def test_queries_of_a_transactions_requests_are_mapped_to_the_platform():
    """`ifNoneExist` and `request.url`, percent-encoded or not, as in JSON."""
    encoded = "http%3A%2F%2F127.0.0.1%3A8080%2Ffhir%2FPatient%2F1"
    body = f"""<Bundle {NS}><type value="transaction"/><entry><request><method value="POST"/>
<url value="Basic?a=Али&amp;subject={GATEWAY}/Patient/1"/><ifNoneExist value='subject={encoded}'/>
</request></entry><entry><request><url value="{GATEWAY}/Basic?a=LESS&amp;b={GATEWAY}/x"/>
</request></entry></Bundle>"""
    wanted = body.replace(GATEWAY, PLATFORM)
    wanted = wanted.replace(encoded, "https%3A%2F%2Fplayground.dhp.uz%2Ffhir%2FPatient%2F1")
    for size in (None, 1):
        text, rewritten, _ = run(
            body.replace("LESS", "&#65;&lt;"), size=size, direction="to-platform"
        )
        assert (text, rewritten) == (wanted.replace("LESS", "A&lt;").encode(), 3)


@pytest.mark.parametrize("kind", ["searchset", "history", "subscription-notification", "batch"])
def test_a_buffered_signed_bundle_is_unchanged(kind):
    body = f"""<Bundle {NS}><type value="{kind}"/><link><url value="{PLATFORM}"/></link><signature>
<who>{REF}</who></signature></Bundle>"""
    for size in (None, 1, 50):
        assert run(body, size=size)[:2] == (body.encode(), 0)


SOURCES = st.sampled_from([*LISTED.values(), *NEVER.values()])
JUNK = st.sampled_from([b"", b"<", b">", b"/>", b'"', b"'", b"&#x41;", b"<!--", b"</x>", b"<?x"])


@settings(max_examples=200)
@given(SOURCES, st.integers(1, 60), st.integers(0, 600), JUNK)
def test_the_result_does_not_depend_on_chunks(body, size, cut, junk):
    """Also for text that is no XML."""
    raw = body.encode()
    raw = raw[:cut] + junk + raw[cut:]
    whole = run(raw)
    assert run(raw, size=size) == whole
    assert run(raw, size=1) == whole


@settings(max_examples=100)
@given(SOURCES, st.integers(1, 60))
def test_a_body_without_platform_urls_is_byte_identical(body, size):
    raw = body.replace("dhp.uz", "dhp.example").encode()
    assert run(raw, size=size) == (raw, 0, 0)


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("form", ["&#{};", "&#x{:x};", "&#x0{:X};", "&#0000{};"])
def test_a_query_is_rewritten_in_every_spelling(form, encoded):
    """Character references and percent-encoding."""
    gateway, platform = f"{GATEWAY}/Patient/1", f"{PLATFORM}/Patient/1"
    if encoded:
        gateway, platform = quote(gateway, safe=""), quote(platform, safe="")
    body = (
        '<Bundle xmlns="http://hl7.org/fhir"><type value="transaction"/><entry><request>'
        '<method value="PUT"/><url value="Basic"/><ifNoneExist value="subject={}"/>'
        "</request></entry></Bundle>"
    )
    for chars in (gateway, "%", "%3AF", "htp"):
        spelled = "".join(form.format(ord(c)) if c in chars else c for c in gateway)
        for size in (None, 1, 50):
            text = body.format(spelled)
            assert run(text.encode(), size=size, direction="to-platform") == (
                body.format(platform).encode(),
                1,
                0,
            )
