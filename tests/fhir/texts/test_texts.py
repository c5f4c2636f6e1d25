"""The texts for people, and the page of errors that is made of them."""

from __future__ import annotations

import re

import pytest

from gateway.errors import REASONS, outcome_text
from gateway.guidance import REASON_GUIDANCE
from gateway.i18n import LANGUAGES

OTHERS = ["ru", "uz"]

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


@pytest.mark.parametrize("language", OTHERS)
def test_the_guidance_is_the_same_in_every_language(language):
    """Each reason has cause and remedy, naming the settings and commands that the English names."""
    for reason, guidance in REASON_GUIDANCE.items():
        for meant in (guidance.meaning, guidance.remedy):
            told = meant.in_language(language)
            assert told != meant
            assert told.endswith(".")
            assert set(re.findall("`[^`]+`", told)) == set(re.findall("`[^`]+`", meant)), reason
