"""The texts for people, and the page of errors that is made of them."""

from __future__ import annotations

import re

import pytest

from docs.generators.errors_page import NAME, markdown
from docs.generators.guidance import GUIDANCE
from docs.generators.translation import Translation
from gateway.errors import ADVICE, REASONS, outcome_text
from gateway.i18n import LANGUAGES

EVERY = [(reason, language) for reason in REASONS for language in LANGUAGES]
FOR_READS = [
    (code, language)
    for language in LANGUAGES
    for code, reason in REASONS.items()
    if reason.read_text
]
ALL = [(*pair, True) for pair in EVERY] + [(*pair, False) for pair in FOR_READS]
OTHERS = ["ru", "uz"]
NOTHING_DELIVERED = ["upstream-unreachable", "upstream-busy", "circuit-open"]
OUTCOME_UNKNOWN = ["upstream-failed", "upstream-timeout", "internal"]

# What the words of each piece of advice have to name.
WRITTEN = {
    "page": ("X-Requested-With",),
    "surplus-slash": ("URL",),
    "raw-bytes": ("UTF-8", "%D0%A8"),
    "not-utf-8": ("UTF-8", "windows-1251", "%D0%A8"),
    "foreign-page": ("Origin", "callers", "login.cors_origins"),
    "body-gone": ("client_id",),
    "media-type": ("Content-Type", "application/fhir+json", "callers", "content_type"),
}


def both(reason, language):
    """The text for writes and the one for reads, one after the other."""
    return f"{outcome_text(reason, language)} {outcome_text(reason, language, write=False)}"


def test_every_reason_has_guidance():
    """The page of errors has exactly the reasons of the table, in its order."""
    assert list(GUIDANCE) == list(REASONS)


@pytest.mark.parametrize("language", LANGUAGES)
def test_advice_is_complete(language):
    """Every language has the same pieces, each with what has to be written, in whole sentences."""
    assert list(ADVICE) == list(WRITTEN)
    for advice, names in WRITTEN.items():
        value = outcome_text("bad-request", language, advice=advice)
        assert all(name in value for name in names)
        assert 80 <= len(value) <= 400
        assert value[0].isupper()
        assert value.endswith(".")
        assert not re.search(r"['`ʻʼ´]", value) or language == "en"


def test_no_text_is_used_twice():
    """A text that stands at two reasons, or in two languages, was copied and not translated."""
    assert len(
        {outcome_text(reason, language, write=write) for reason, language, write in ALL}
    ) == len(ALL)


@pytest.mark.parametrize(("reason", "language", "write"), ALL)
def test_a_text_is_two_to_four_short_sentences(reason, language, write):
    """Short enough for a message box, complete, and without a placeholder."""
    value = outcome_text(reason, language, write=write)
    assert 80 <= len(value) <= 400
    assert 2 <= len(re.findall(r"[.;:](?= |$)", value)) <= 6
    assert max(len(sentence) for sentence in re.split(r"[.;:] ", value)) <= 190
    assert value[0].isupper()
    assert value.endswith(".")
    assert "  " not in value
    assert not re.search(r"[{}<>%\n\t]|TODO|FIXME|\?\?", value)


@pytest.mark.parametrize("reason", REASONS)
def test_each_language_is_written_in_its_script(reason):
    """English and Uzbek are Latin, Russian is Cyrillic apart from technical names."""
    cyrillic = re.compile("[Ѐ-ӿ]")
    latin_word = re.compile("[A-Za-z][A-Za-z_-]+")
    english, russian, uzbek = (both(reason, language) for language in LANGUAGES)
    assert not cyrillic.search(english)
    assert not cyrillic.search(uzbek)
    assert english.isascii()
    assert len(cyrillic.findall(russian)) > 60
    names = {"HTTP", "API", "SSO", "FHIR", "POST", "Allow", "Retry-After", "_search", "search"}
    names |= {"client_id", "client", "secret", "request-id", "diagnostics"}
    names |= {"listen", "public_url"}
    assert set(latin_word.findall(russian)) <= names


@pytest.mark.parametrize("reason", REASONS)
def test_uzbek_letters_are_written_with_one_sign(reason):
    """o‘ and g‘ have U+2018 and the tutuq belgisi U+2019; no other apostrophe stands for them."""
    value = both(reason, "uz")
    assert not re.search(r"['`ʻʼ´]", value)
    assert all(match in "oOgG" for match in re.findall("(.)‘", value))
    assert all(match not in "oOgG" for match in re.findall("(.)’", value))


@pytest.mark.parametrize("reason", OUTCOME_UNKNOWN)
def test_an_unclear_write_is_read_before_it_is_repeated(reason):
    """A user who reads only the text is told how not to store the data twice."""
    english, russian, uzbek = (outcome_text(reason, language) for language in LANGUAGES)
    assert "It is not known whether the data was saved" in english
    assert "read the record before you send it again" in english
    assert "Неизвестно, сохранены ли данные" in russian
    assert "прочитайте запись, прежде чем отправлять запрос снова" in russian
    assert "saqlangan-saqlanmagani noma’lum" in uzbek
    assert "qayta yuborishdan oldin yozuvni topib, o‘qib ko‘ring" in uzbek


@pytest.mark.parametrize("reason", [*OUTCOME_UNKNOWN, "upstream-redirect", "upstream-non-fhir"])
def test_a_read_is_told_nothing_of_data_to_be_saved(reason):
    """Who only read need not look for a record; the two texts differ."""
    english, russian, uzbek = (
        outcome_text(reason, language, write=False) for language in LANGUAGES
    )
    assert "saved" not in english
    assert "сохранен" not in russian
    assert "saqlan" not in uzbek
    assert outcome_text(reason, "en") != english


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_long_pause_is_for_the_operator(language):
    """The text of the open circuit says after how many minutes the operator must be informed."""
    assert "15" in outcome_text("circuit-open", language)


@pytest.mark.parametrize("reason", NOTHING_DELIVERED)
def test_nothing_delivered_is_said(reason):
    """Where the platform cannot have the data the text says so, and when to send it again."""
    english, russian, uzbek = (outcome_text(reason, language) for language in LANGUAGES)
    assert "Nothing was delivered." in english
    assert "again later" in english
    assert "Ничего не доставлено." in russian
    assert "снова позже" in russian
    assert "Hech narsa yetkazilmadi." in uzbek
    assert "keyinroq" in uzbek


def test_an_unavailable_sso_means_that_nothing_was_sent():
    """Without a token nothing goes out, so the request can be sent again later."""
    assert "nothing was sent" in outcome_text("sso-unavailable", "en")
    assert "ничего не отправлено" in outcome_text("sso-unavailable", "ru")
    assert "hech narsa yuborilmadi" in outcome_text("sso-unavailable", "uz")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_refused_token_request_names_what_to_check(language):
    """The operator is told to compare the client id and the secret with the SSO."""
    value = outcome_text("token-refused", language)
    assert all(name in value for name in ("client_id", "client secret", "SSO"))


@pytest.mark.parametrize("reason", REASONS)
def test_guidance_is_complete(reason):
    """Cause, remedy and who may repeat are sentences, not stubs."""
    guidance = GUIDANCE[reason]
    assert all(field.endswith(".") and len(field) >= 20 for field in guidance[1:])
    assert guidance.repeat


@pytest.mark.parametrize("language", OTHERS)
def test_the_guidance_is_the_same_in_every_language(language):
    """Each reason has cause and remedy, naming the settings and commands that the English names."""
    translation = Translation(NAME, language)
    for reason, guidance in GUIDANCE.items():
        for meant in (guidance.cause, guidance.remedy):
            told = translation(meant)
            assert told != meant
            assert told.endswith(".")
            assert set(re.findall("`[^`]+`", told)) == set(re.findall("`[^`]+`", meant)), reason


@pytest.mark.parametrize("language", OTHERS)
def test_a_translated_page_of_errors_is_whole(language):
    """It has every reason with the text of its language, and whose turn it is in its words."""
    page = markdown(language)
    for reason in REASONS.values():
        assert f"\n### {reason.code}\n" in page
        assert outcome_text(reason.code, language) in page
        assert outcome_text(reason.code, language, write=False) in page
        assert outcome_text(reason.code, "en") not in page
        assert f"| {GUIDANCE[reason.code].repeat} |" not in page


def test_an_unknown_language_gives_english():
    """A language that is not offered falls back instead of failing."""
    assert outcome_text("loop", "de") == outcome_text("loop", "en")


def test_the_page_of_errors_has_every_reason():
    """Each reason has a row in the table, a section, its text and its guidance."""
    page = markdown()
    for reason in REASONS.values():
        assert f"| [{reason.code}](#{reason.code}) |" in page
        assert f"\n### {reason.code}\n" in page
        assert outcome_text(reason.code, "en") in page
        assert GUIDANCE[reason.code].cause in page
        assert GUIDANCE[reason.code].remedy in page


def test_the_page_of_errors_shows_an_outcome():
    """A reader sees one outcome, and the page ends with a line break."""
    page = markdown()
    assert '"resourceType": "OperationOutcome"' in page
    assert page.endswith("\n")
    assert page == markdown()
