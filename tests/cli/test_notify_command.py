"""The command `dhp-gateway notify --test`, and checks of the addresses."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.app import preflight
from gateway.app.preflight import Finding
from gateway.cli import notify_command
from gateway.config.loader import load_settings
from gateway.config.settings import Settings
from tests.cli.test_main import PLAIN, dhp, write
from tests.doubles.alert_receivers import PASSWORD, MailServer, Webhook


def settings_with_alerts(**alerts: Any) -> dict[str, Any]:
    return {**PLAIN, "environment": "dhp-playground", "alerts": alerts}


def load(tmp_path: Path, **alerts: Any) -> Settings:
    return load_settings(write(tmp_path, settings_with_alerts(**alerts)), {})


async def test_every_address_gets_a_test_message(tmp_path: Path) -> None:
    async with Webhook() as hook, MailServer() as mail, Webhook(status=403) as refusing:
        wrong = mail.url.replace(PASSWORD, "planted-other")
        lines = ("# who is told", hook.url, "", f"  {mail.url}", refusing.url, wrong)
        file = tmp_path / "notify"
        file.write_text("\n".join(lines))
        settings = settings_with_alerts(notify_file=str(file), language="uz")
        result = await dhp("notify", "--test", "--config", write(tmp_path, settings))
    assert result.code == 1
    told = [line[:8].strip() for line in result.out.splitlines()]
    assert told == ["ok", "ok", "failed", "failed"]
    assert "ok      alerts.notify_file line 2 (json): the test message was accepted" in result.out
    assert "failed  alerts.notify_file line 6 (mailto): the test message was not" in result.out
    assert "planted" not in result.out + result.err
    for taken in (*hook.messages, *mail.messages):
        assert taken["title"].endswith(": sinov xabari")
        assert "shlyuzining sinov xabari" in taken["message"]
    assert (len(hook.messages), len(mail.messages)) == (1, 1)
    assert hook.messages[0]["authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    ("alerts", "code", "said"),
    [
        ({"notify": []}, 2, "alerts.notify: is empty"),
        (
            {"notify": ["planted"]},
            2,
            "alerts.notify[0]: is not an address that Apprise understands",
        ),
        ({"notify_file": "/nowhere/notify"}, 3, "alerts.notify_file: /nowhere/notify: no such"),
        ({"notify": ["a://b"], "notify_file": "c"}, 2, "alerts.notify: and notify_file are both"),
        ({"language": "de"}, 2, "alerts.language"),
    ],
    ids=["nobody", "no address", "no file", "both", "no language"],
)
async def test_unusable_addresses_are_reported(
    tmp_path: Path, alerts: dict[str, Any], code: int, said: str
) -> None:
    result = await dhp(
        "notify", "--test", "--config", write(tmp_path, settings_with_alerts(**alerts))
    )
    assert (result.code, result.out) == (code, "")
    assert said in result.err
    assert "planted" not in result.err


async def test_without_the_option_test_nothing_is_sent(tmp_path: Path) -> None:
    result = await dhp(
        "notify", "--config", write(tmp_path, settings_with_alerts(notify=["json://localhost"]))
    )
    assert result.code == 2
    assert "--test" in result.err


def test_check_reports_each_unusable_address(tmp_path: Path) -> None:
    settings = load(tmp_path, notify=["json://127.0.0.1", "planted://x", "tgram://planted"])
    found = failed(settings)
    assert [each.key for each in found] == ["alerts.notify[1]", "alerts.notify[2]"]
    assert "planted" not in "".join(each.line() for each in found)


def failed(settings: Settings) -> list[Finding]:
    return [each for each in preflight.preflight(settings) if each.state == "failed"]


async def test_a_missing_extra_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    settings = load(tmp_path, notify=["json://127.0.0.1", "json://127.0.0.1:81"])
    [finding] = failed(settings)
    assert finding.key == "alerts.notify"
    assert finding.detail == "needs the extra `notify`: pip install 'dhp-gateway[notify]'"
    assert [each async for each in notify_command.check_addresses(settings)] == []


async def test_doctor_connects_to_each_address_without_sending(tmp_path: Path) -> None:
    bot = "tgram://123456789:AAplanted-planted-planted-planted-p/12345"
    async with Webhook() as hook, MailServer() as mail:
        settings = load(tmp_path, notify=[hook.url, mail.url, bot, "planted"])
        async with mail.stopped():
            found = [each async for each in notify_command.check_addresses(settings)]
    lines = [each.line() for each in found]
    assert [each.state for each in found] == ["ok", "ok", "ok", "failed", "ok"]
    assert f"alerts.notify[0] (json) TCP: 127.0.0.1 port {hook.port} accepts" in lines[1]
    assert f"alerts.notify[1] (mailto) TCP: 127.0.0.1 port {mail.port} refuses" in lines[3]
    assert "alerts.notify[2] (tgram): Apprise understands it" in lines[4]
    assert "planted" not in "".join(lines)
    assert hook.messages + mail.messages == []
