"""Texts in Russian and Uzbek are all in that language, with one term for one concept."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from babel.messages.pofile import read_po

from gateway.admin.status_page import page_facts, page_update
from gateway.alerts.alert_messages import ALERT_MESSAGES
from gateway.errors import ADVICE
from gateway.guidance import COMPONENT_GUIDANCE, PLATFORM_CAUSES, REASON_GUIDANCE
from gateway.health.health import ANSWER_WORDS, CARE_QUESTION
from gateway.i18n import LANGUAGES
from gateway.oauth.token_failures import TOKEN_CAUSES
from gateway.outbox import async_status
from tests.doubles.gateway_states import STATES, StatusSources
from tests.test_i18n import SHARED as SHARED_BY_COMMANDS
from tests.test_i18n import catalogue, words
from tests.tracked_files import tracked_files

ROOT = Path(__file__).parents[1]
OTHERS = [language for language in LANGUAGES if language != "en"]
# In texts that hold no markup, names that are the same everywhere look like other words.
NAMES = {
    *(
        "API",
        "DHP Gateway",
        "FHIR",
        "HTTP",
        "JSON",
        "SSO",
        "TLS",
        "URL",
        "UTC",
        "UTF-8",
        "windows-1251",
        "Bearer",
        "Bundle",
        "CapabilityStatement",
        "OAuth",
    ),
    *("POST", "Allow", "Retry-After", "Content-Location", "X-Requested-With", "_search"),
    *("client_id", "client secret", "request-id", "diagnostics", "cookie", "Prometheus"),
    *("doctor", "dhp-gateway", "x", "Origin", "Content-Type", "application/fhir+json", "XML"),
    *(
        "Compose",
        "Kubernetes",
        "callers",
        "content_type",
        "DNS",
        "5xx",
        "scope",
        "syslog",
        "systemd",
        "MiB",
        "CA",
    ),
    *("FHIR API", "HOST", "HTML", "Client secret", "firewall", "load balancer", "traceback", "id"),
}
NAME = re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in NAMES))
# Hosts, commands in backquotes, what the monitoring fills in.
FILLED = re.compile(r"`[^`]*`|\{[^}]*\}+|\b[\w-]+(?:\.[\w-]+)+\b")
CODE = re.compile("`[^`]*`|/[a-z]+\\b")
PLACEHOLDER = re.compile("[$]?\\{[^}]*\\}+")
WORD = re.compile(r"[A-Za-z‘’]*[A-Za-z]{2}[A-Za-z‘’]*")
SSO_NAME = {"ru": r"сервис\w* входа", "uz": r"kirish xizmati\w*"}


def alerts(language: str) -> Iterator[str]:
    """What an alert tells people."""
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules/alerts.yml").read_text("utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            yield rule["annotations"]["summary" if language == "en" else f"summary_{language}"]


def pages(language: str) -> Iterator[str]:
    """Return the texts of the templates of pages, and the units of durations."""
    # The English texts are the keys of every catalogue.
    name = "ru" if language == "en" else language
    with (ROOT / f"gateway/locale/{name}/LC_MESSAGES/operators.po").open("rb") as file:
        for each in read_po(file, locale=name):
            if any(
                path.endswith((".html", "page_rendering.py", "i18n.py"))
                for path, _ in each.locations
            ):
                yield each.id if language == "en" else each.string


def texts_of(language: str) -> list[str]:
    """Return every text for people in a language, except the documents."""
    tables = (*(ANSWER_WORDS, PLATFORM_CAUSES), *(async_status.MESSAGES, ALERT_MESSAGES, ADVICE))
    messages = [CARE_QUESTION, *(text for table in tables for text in table.values())]
    messages += [each.meaning for each in TOKEN_CAUSES.values()]
    records = COMPONENT_GUIDANCE.values()
    messages += [text for each in records for text in (each.meaning, each.remedy)]
    reasons = REASON_GUIDANCE.values()
    messages += [text for each in reasons for text in (each.text, each.read_text) if text]
    shown = [each.in_language(language) for each in messages]
    return [*shown, *alerts(language), *pages(language)]


def latin(text: str) -> set[str]:
    """Return the words in Latin letters that are no names, in lower case."""
    return {word.lower() for word in WORD.findall(NAME.sub(" ", FILLED.sub(" ", text)))}


@functools.cache
def words_of(language: str) -> set[str]:
    return set().union(*map(latin, texts_of(language)))


# What English and Uzbek write alike.
SHARED = {"token", "administrator", "audit", "portal", "ms", "disk", "log", "server", "port"}


class VisibleText(HTMLParser):
    """The visible text of a page, without what is marked as code."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self._code = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._code += tag == "code"
        self.text += [value or "" for name, value in attrs if name in ("aria-label", "data-name")]

    def handle_endtag(self, tag: str) -> None:
        self._code -= tag == "code"

    def handle_data(self, data: str) -> None:
        if not self._code:
            self.text.append(data)


def read(state: str, language: str) -> str:
    one = StatusSources(state)
    shown = page_update(page_facts(one.facts(language), one.components(), {}))
    return " ".join([shown["title"], *VisibleText(shown["main"]).text])


def test_russian_texts_have_no_english_fragment() -> None:
    """Latin letters are for names only; commands have more names than pages."""
    assert words_of("ru") == set()
    assert {word for text in catalogue("ru").values() for word in words(text)} == set()


def test_uzbek_texts_have_no_english_fragment() -> None:
    """No English word, except those that are Uzbek too."""
    assert words_of("uz") & words_of("en") <= SHARED
    commands = catalogue("uz")
    english, uzbek = (
        {word.lower() for text in texts for word in words(text)}
        for texts in (commands, commands.values())
    )
    assert uzbek & english <= SHARED_BY_COMMANDS


# What no text says, with the reason. Code in backquotes is not searched.
FORBIDDEN = {
    "en": {
        r"\b(tells?|told)\b": "report, say",
        r"\bmend": "correct, repair, restore",
        r"(?<!nothing )(?<!nowhere )(?<!everything )\belse\b": "otherwise",
        r"\bgo(es)? on\b": "continue",
        r"\b(is|are|be) (not )?taken\b": "accept",
        r"\bkept\b|\bkeep writes\b": "store",
        r"\b(an|the|no|its|our|good) answers?\b|\banswer of\b": "response",
        r"\bthe line (is|was)\b|\bon the line\b": "connection, network",
        r"\b(people|persons?|somebody)\b": "operator, user",
        r"\bour\b": "the gateway's",
        r"\bonce more\b|\banew\b": "again",
        r"\bleft alone\b|\bstumbled\b|\bbroke off\b": "paused, failed",
    },
    "ru": {
        r"\bлини[яийюе]": "связь, сеть",
        r"\b(слать|шл[её]т|шлют|почини|достаёт)|для проб|чем дело|делает вид": "не разговорно",
        r"\bклиент": "вызывающая система, client_id: клиент больницы — пациент",
        r"\bмашин": "компьютер",
        r"\bкуки\b": "cookie",
        r"\bнаш(а|е|его|ему|им|ей|у|и|их)?\b": "шлюз",
        r"Здесь ничего|^Ничего[.,]": "делать ничего не нужно",
        r"решени\w+ человека": "администратор",
        r"пробн": "проверочное, тестовое",
        r"область действия": "область доступа (scope)",
        r"(?<![-\w])\d+ (с|мин|ч|сут|MiB|KiB|байт|бит)\b": "неразрывный пробел перед единицей",
    },
    "uz": {
        r"\bmijoz": "client_id, chaqiruvchi tizim: shifoxona mijozi — bemor",
        r"(?<!’)\bsir(i|ni|ini|lar|lari|dan|da|ga|ning)?\b": "client secret, maxfiy qiymat",
        r"\bodatda:|\bodatiy\b|\(odatda": "standart",
        r"tugash kod": "chiqish kodi",
        r"\bstatus(i|ga|da|ning|lar)?\b": "holat kodi",
        r"tarmoqlararo ekran(?!\w* ?\(firewall\))": "tarmoqlararo ekran (firewall)",
        r"markaz(?!\w* \(CA\))": "markaz (CA)",
        r"muvozanatlagich(?!\w* \(load balancer\))|balanslagich|taqsimlagich": "load balancer",
        r"\bmashina": "kompyuter",
        r"\bkuki|tomonidan band|\bodam qaror|\binson qaror": "cookie, egallagan, administrator",
        "[«»]": "“…”",
        r"` (ni|da|dan|dagi|ga|ning|niki)\b": "backquotes without a space",
        r"\b(URL|XML|JSON|YAML|TLS|OAuth|callers) ?(?<!’)(ni|da|dan|dagi|ga|ning)\b": "’",
        "- yo‘q": "bor-yo‘q",
        "Audit yozuv": "audit qaydi",
    },
}


def without_code(text: str) -> str:
    """Return a text with marks in the place of code and values."""
    return CODE.sub("``", PLACEHOLDER.sub("{}", text))


def every_text(language: str) -> Iterator[str]:
    """Yield each text of the program, the generated pages and the alerts."""
    name = "ru" if language == "en" else language
    catalogues = [
        *tracked_files(f"gateway/locale/{name}/*.po"),
        *tracked_files(f"docs/generators/errors_page.{name}.po"),
        *tracked_files(f"docs/generators/settings_page.{name}.po"),
    ]
    for path in catalogues:
        with path.open("rb") as file:
            for message in read_po(file, locale=name):
                texts = message.id if language == "en" else message.string
                yield from [texts] if isinstance(texts, str) else texts
    yield from alerts(language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_has_a_word_with_another_meaning_here(language: str) -> None:
    """One term for one thing; each word that was replaced everywhere stays away."""
    assert [
        (found[0], instead, text)
        for text in every_text(language)
        for pattern, instead in FORBIDDEN[language].items()
        if (found := re.search(pattern, without_code(text), re.IGNORECASE))
    ] == []


@pytest.mark.parametrize("language", OTHERS)
@pytest.mark.parametrize("state", STATES)
def test_the_page_is_in_one_language_in_every_state(state: str, language: str) -> None:
    """Except code, names and commands."""
    received = read(state, language)
    assert latin(received) <= (words_of("uz") if language == "uz" else set())


@pytest.mark.parametrize("language", OTHERS)
def test_the_sso_has_one_name(language: str) -> None:
    """`SSO` only follows the name."""
    named = [
        text for text in texts_of(language) if re.search(SSO_NAME[language], text, re.IGNORECASE)
    ]
    assert len(named) > 10
    for text in texts_of(language):
        without = re.sub(rf"{SSO_NAME[language]} ?\(SSO\)", "", text, flags=re.IGNORECASE)
        assert "SSO" not in without
        assert not re.search("служб[а-я]+ входа|служб[а-я]+ SSO", text, re.IGNORECASE)
    assert not any("SSO" in text for text in catalogue(language).values())
