"""The texts for people, and the page of errors that is made of them."""

from __future__ import annotations

import re

import pytest

from gateway.errors import ADVICE, REASONS, outcome_text
from gateway.guidance import REASON_GUIDANCE
from gateway.i18n import LANGUAGES

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
    "bundle": ("Bundle",),
    "bundle-size": ("Bundle",),
    "body-gone": ("client_id",),
    "held-off": ("Retry-After", "diagnostics"),
    "queue-away": ("Retry-After", "15"),
    "media-type": ("Content-Type", "application/fhir+json", "callers", "content_type"),
    "unprocessed": ("diagnostics", "413", "414", "431", "408", "425", "429"),
}


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


# What a user who reads only the text has to find there: how not to store data twice, when to send
# it again, and what to check.
_NOTHING_DELIVERED = {
    "en": ("Nothing was delivered.", "again"),
    "ru": ("Ничего не доставлено.", "снова"),
    "uz": ("Hech narsa yetkazilmadi.", "yana yuboring"),
}
_OUTCOME_UNKNOWN = {
    "en": ("It is not known whether the data was saved", "send it again only if it is not there"),
    "ru": ("Неизвестно, сохранены ли данные", "отправляйте запрос снова, только если их там нет"),
    "uz": ("saqlangan-saqlanmagani noma’lum", "faqat u yerda bo‘lmasa, so‘rovni qayta yuboring"),
}
SAID = [
    *((reason, _NOTHING_DELIVERED) for reason in NOTHING_DELIVERED),
    *((reason, _OUTCOME_UNKNOWN) for reason in OUTCOME_UNKNOWN),
    (
        "sso-unavailable",
        {
            "en": ("nothing was sent",),
            "ru": ("ничего не отправлено",),
            "uz": ("hech narsa yuborilmadi",),
        },
    ),
    # After how many minutes the operator must be informed.
    ("circuit-open", dict.fromkeys(LANGUAGES, ("15",))),
    ("token-refused", dict.fromkeys(LANGUAGES, ("client_id", "client secret", "SSO"))),
]


@pytest.mark.parametrize(("reason", "words"), SAID)
def test_a_text_says_what_to_do(reason, words):
    for language in LANGUAGES:
        text = outcome_text(reason, language)
        assert [each for each in words[language] if each not in text] == []


# What must not be said once something was sent.
_CLAIMS = {
    "en": r"[Nn]othing was (sent|delivered)|not sen[dt]\b|did not send",
    "ru": r"[Нн]ичего не (отправлено|доставлено)|не отправил",
    "uz": r"hech narsa (yuborilmadi|yetkazilmadi)|yubormadi",
}
# The reasons that may follow an attempt: of the platform, of the SSO after a refused token, and of
# a gateway that stops meanwhile.
AFTER_AN_ATTEMPT = [
    *(reason for reason in REASONS if reason.startswith(("upstream-", "token-", "sso-"))),
    *("circuit-open", "shutting-down", "internal", "search-parameter-ignored"),
    # An answer to HTTP/1.0 has to be kept in memory.
    "overloaded",
]


@pytest.mark.parametrize("delivery", ["refused", "unclear"])
@pytest.mark.parametrize("write", [True, False], ids=["write", "read"])
@pytest.mark.parametrize("reason", AFTER_AN_ATTEMPT)
def test_nothing_is_denied_that_was_sent(reason, write, delivery):
    """After an attempt that was sent, no text says that nothing was; a write is told what to do."""
    for language in LANGUAGES:
        text = outcome_text(reason, language, write=write, delivery=delivery)
        assert not re.search(_CLAIMS[language], text)
        assert not re.search(r"[{}]", text)
        assert len(text) <= 500
    if write and delivery == "unclear" and "{" in REASON_GUIDANCE[reason].text:
        assert "is not known whether the data was saved" in outcome_text(
            reason, "en", delivery=delivery
        )


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


@pytest.mark.parametrize("language", OTHERS)
def test_the_guidance_is_the_same_in_every_language(language):
    """Each reason has cause and remedy, naming the settings and commands that the English names."""
    for reason, guidance in REASON_GUIDANCE.items():
        for meant in (guidance.meaning, guidance.remedy):
            told = meant.in_language(language)
            assert told != meant
            assert told.endswith(".")
            assert set(re.findall("`[^`]+`", told)) == set(re.findall("`[^`]+`", meant)), reason
