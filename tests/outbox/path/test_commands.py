"""`dhp-gateway outbox …`, beside a running gateway."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.doubles.command import Result, dhp
from tests.doubles.forked import ForkedGateway
from tests.doubles.platform import outcome
from tests.doubles.processes import free_port
from tests.outbox.path.conftest import Open, outbox_in
from tests.outbox.path.harness import OutboxSetup, observation

BY = f"command, user {os.getuid()}"


class Operator:
    """Runs the commands with the settings of the gateway under test."""

    def __init__(self, directory: Path) -> None:
        self.config = directory / "settings.yaml"
        self.settings: dict[str, Any] = {
            "environment": "dhp-playground",
            "credentials": {"default": {"client_id": "a", "client_secret": "b"}},
            "outbox": outbox_in(directory),
        }

    async def run(self, *arguments: str) -> Result:
        self.write()
        return await dhp("outbox", *arguments, "--config", self.config, folder=self.config.parent)

    def start(self, *arguments: str, stdout: Path) -> ForkedGateway:
        self.write()
        err = self.config.with_name("err")
        err.touch()
        return ForkedGateway(
            ["outbox", *arguments, "--config", str(self.config)], stdout=stdout, stderr=err
        )

    def write(self) -> None:
        self.config.write_text(yaml.safe_dump(self.settings))


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


@pytest.fixture
async def rejected(setup: OutboxSetup) -> tuple[OutboxSetup, str]:
    setup.relay.cut()
    location = (await setup.write(patient=987654)).location
    setup.answer_writes(outcome(422))
    await setup.deliver(location)
    return setup, location


async def test_list_shows_failed_entries(
    rejected: tuple[OutboxSetup, str], operator: Operator
) -> None:
    entry_id = rejected[1].rsplit("/", 1)[1]
    listed = await operator.run("list")
    assert listed.code == 0
    assert entry_id in listed.out
    assert listed.out.splitlines()[-1] == "1 failed"
    assert "platform-status 422" in listed.out
    assert "cause: platform-status 422\n" in (await operator.run("show", entry_id)).out
    (facts,) = json.loads((await operator.run("list", "--json")).out)
    assert (facts["id"], facts["state"], facts["caller"]) == (entry_id, "failed", "anonymous")
    for narrowed in (("--state", "unclear"), ("--caller", "other")):
        assert entry_id not in (await operator.run("list", *narrowed)).out
    wrong = await operator.run("list", "--state", "nonsense")
    assert wrong.code == 2
    assert "waiting" in wrong.err


async def test_list_shows_everything_undelivered_with_decisions_first(
    setup: OutboxSetup, operator: Operator
) -> None:
    setup.relay.cut()
    done = (await setup.write(patient=1)).location
    await setup.deliver(done)
    setup.relay.cut()
    failed = (await setup.write(patient=2)).location
    setup.answer_writes(outcome(422))
    await setup.deliver(failed)
    setup.relay.cut()
    waiting = (await setup.write(patient=3)).location
    listed = json.loads((await operator.run("list", "--json")).out)
    assert [entry["id"] for entry in listed] == [
        location.rsplit("/", 1)[1] for location in (failed, waiting)
    ]
    assert done.rsplit("/", 1)[1] in (await operator.run("list", "--all")).out


async def test_contents_are_shown_with_reveal_only(
    rejected: tuple[OutboxSetup, str], operator: Operator
) -> None:
    entry_id = rejected[1].rsplit("/", 1)[1]
    masked = await operator.run("show", entry_id)
    assert "failed" in masked.out
    assert "987654" not in masked.out
    assert "Observation/1" not in masked.out
    revealed = await operator.run("show", entry_id, "--reveal")
    assert "Patient/987654" in revealed.out
    assert "    Content-Type: application/fhir+json\n" in revealed.out
    assert "noted for the audit" in revealed.err
    operator.settings["audit"] = {"sink": "off"}
    assert (await operator.run("show", entry_id, "--reveal")).err.count("noted") == 0
    assert (await operator.run("show", "nothing")).code == 1
    plain = operator.config.parent / "export.jsonl"
    exported = await operator.run("export", str(plain))
    assert exported.code == 0
    assert "987654" not in plain.read_text()
    assert stat.S_IMODE(plain.stat().st_mode) == 0o600
    assert (await operator.run("export", str(plain))).code == 3
    (line,) = (await operator.run("export", "-", "--reveal")).out.splitlines()
    assert json.loads(line)["request"]["body"] == observation(987654).decode()


async def test_a_retried_entry_is_delivered(
    rejected: tuple[OutboxSetup, str], operator: Operator
) -> None:
    setup, location = rejected
    assert (await operator.run("retry", "--cause", "expired")).out == ""
    done = await operator.run("retry", "--failed")
    assert done.code == 0
    assert location.rsplit("/", 1)[1] in done.out
    ended = await setup.final_response(location)
    while not ended.json["entry"][0]["response"]["status"].startswith("200"):
        ended = await setup.final_response(location)
    assert len(setup.writes()) == 2
    assert (await operator.run("retry", "--cause", "platform-status 422")).out == ""
    assert (await operator.run("retry")).code == 2
    again = await operator.run("retry", location.rsplit("/", 1)[1])
    assert again.code == 1
    assert "delivered" in again.out


async def test_dropping_an_unclear_entry_unblocks_others(opened: Open, operator: Operator) -> None:
    # A gateway with an audit could be the one that records it.
    async with opened(audit={"sink": "off"}) as setup:
        unclear = await setup.unclear_write()
        behind = (await setup.write(number=2)).location
        assert (await setup.ask("GET", behind)).status == 202
        dropped = await operator.run("drop", unclear.rsplit("/", 1)[1], "nothing")
        assert dropped.code == 1
        assert "dropped" in dropped.out
        assert "there is no such entry" in dropped.out
        assert '"step":"dropped"' in dropped.out
        assert "noted for the audit" not in dropped.out
        assert (await setup.final_response(behind)).status == 200
        assert (await setup.ask("GET", unclear)).status == 410


SHOWN = {
    "en": ("it was sent; whether the platform has it is not known", "in_doubt: no", "unclear"),
    "ru": (
        "запись отправлена; неизвестно, есть ли она на платформе",
        "исход неясен: нет",
        "неясно",
    ),
    "uz": (
        "yozuv jo‘natilgan; platformada bor-yo‘qligi noma’lum",
        "natijasi noaniq: yo‘q",
        "noaniq",
    ),
}


async def test_show_is_translated(opened: Open, operator: Operator) -> None:
    async with opened(callers=[{"name": "failed", "outbox": "always"}]) as setup:
        entry_id = (await setup.unclear_write()).rsplit("/", 1)[1]
        for language, words in SHOWN.items():
            told = await operator.run("show", entry_id, "--lang", language)
            assert [each for each in words if each not in told.out] == []
            assert told.out.count(": failed\n") == 1
            foreign = [each for other in SHOWN if other != language for each in SHOWN[other]]
            assert [each for each in foreign if each in told.out] == []


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"enabled": False}, 2, "outbox.enabled"),
        ({"encryption_key": "B" * 43}, 3, "another key"),
        ({"encryption_key": "short"}, 3, "32 bytes"),
        ({"url": "sqlite:////nowhere/at/all.db"}, 3, "does not exist"),
        ({"url": f"sqlite:////{'long' * 64}/all.db"}, 3, "file name too long"),
    ],
)
async def test_an_outbox_that_cannot_be_opened_is_reported(
    rejected: tuple[OutboxSetup, str],
    operator: Operator,
    change: dict[str, Any],
    code: int,
    words: str,
) -> None:
    operator.settings["outbox"].update(change)
    done = await operator.run("list")
    assert (done.code, words in done.err) == (code, True), done.err


async def test_check_reports_an_unusable_outbox(operator: Operator) -> None:
    operator.write()
    assert (await dhp("check", "--config", operator.config)).code == 0
    block = (
        "import sys; sys.modules['sqlalchemy'] = None; from gateway.cli.main import main; main()"
    )
    without = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", block, "check", "--config", operator.config],
        capture_output=True,
        text=True,
    )
    assert (without.returncode, "dhp-gateway[outbox]" in without.stdout) == (2, True)
    operator.settings["outbox"]["encryption_key"] = "short"
    operator.write()
    short = await dhp("check", "--config", operator.config)
    assert (short.code, "outbox.encryption_key: is not 32 bytes" in short.out) == (2, True)


async def test_a_gateway_with_another_key_does_not_start(opened: Open, tmp_path: Path) -> None:
    async with opened() as setup:
        setup.relay.cut()
        await setup.write()
    operator = Operator(tmp_path)
    operator.settings |= {
        "listen": {"address": "127.0.0.1:0"},
        "admin": {"address": "127.0.0.1:0"},
    }
    operator.settings["outbox"]["encryption_key"] = "C" * 43
    operator.write()
    done = await dhp("run", "--config", operator.config)
    told = f"outbox.url: {operator.settings['outbox']['url']} contains entries that were encrypted"
    assert (done.code, told in done.err) == (3, True), done.err


def audited(directory: Path) -> dict[str, Any]:
    return {"sink": "file", "path": str(directory / "audit" / "audit.jsonl")}


def steps(directory: Path) -> list[tuple[str, str, str]]:
    """Step, entry and author of what people did, as the audit has it."""
    lines = (directory / "audit" / "audit.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [(each["step"], each["entry"], each["by"]) for each in records if "by" in each]


async def test_an_action_is_recorded_by_the_running_gateway(
    opened: Open, operator: Operator, tmp_path: Path
) -> None:
    (tmp_path / "audit").mkdir()
    operator.settings["audit"] = audited(tmp_path)
    async with opened(audit=audited(tmp_path)) as setup:
        unclear = await setup.unclear_write()
        behind = (await setup.write(number=2)).location
        entry_id = unclear.rsplit("/", 1)[1]
        dropped = await operator.run("drop", entry_id)
        assert (dropped.code, "noted for the audit" in dropped.out) == (0, True)
        assert (await operator.run("drop", entry_id)).code == 1
        await setup.final_response(behind)
        while not steps(tmp_path):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.02)
    assert steps(tmp_path) == [("dropped", entry_id, BY)]


async def test_a_command_creates_no_audit_file(
    opened: Open, operator: Operator, tmp_path: Path
) -> None:
    """The file would belong to the user of the command."""
    async with opened() as setup:
        setup.relay.cut()
        entry_id = (await setup.write()).location.rsplit("/", 1)[1]
    (tmp_path / "audit").mkdir()
    operator.settings["audit"] = audited(tmp_path)
    assert (await operator.run("drop", entry_id)).code == 0
    assert list((tmp_path / "audit").iterdir()) == []
    async with opened(audit=audited(tmp_path)):
        pass
    assert steps(tmp_path) == [("dropped", entry_id, BY)]


@pytest.fixture
async def queued_entry(opened: Open, tmp_path: Path) -> str:
    (tmp_path / "audit").mkdir()
    async with opened(audit=audited(tmp_path)) as setup:
        setup.relay.cut()
        return (await setup.write()).location.rsplit("/", 1)[1]


async def test_a_command_writes_the_audit_file_while_no_gateway_runs(
    operator: Operator, tmp_path: Path, queued_entry: str
) -> None:
    operator.settings["audit"] = audited(tmp_path)
    assert (await operator.run("drop", queued_entry, "--reason", "entered anew")).code == 0
    assert [step for step, *_ in steps(tmp_path)] == ["dropped"]
    assert '"reason":"entered anew"' in (tmp_path / "audit" / "audit.jsonl").read_text()


def unreachable_audit(**more: str) -> dict[str, Any]:
    return {"sink": "syslog", "syslog_url": f"tcp://127.0.0.1:{free_port()}", **more}


@pytest.mark.parametrize("on_failure", ["block", "drop"])
async def test_an_action_is_recorded_later_if_the_audit_is_unavailable(
    opened: Open, operator: Operator, tmp_path: Path, queued_entry: str, on_failure: str
) -> None:
    operator.settings["audit"] = unreachable_audit(on_failure=on_failure)
    dropped = await operator.run("drop", queued_entry)
    assert dropped.code == 0
    assert "the audit cannot be written; noted for the audit" in dropped.out
    async with opened(audit=audited(tmp_path)):
        pass
    assert steps(tmp_path) == [("dropped", queued_entry, BY)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_an_action_is_recorded_if_its_command_is_interrupted(
    opened: Open, operator: Operator, tmp_path: Path, queued_entry: str, number: signal.Signals
) -> None:
    operator.settings["audit"] = unreachable_audit()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    process = operator.start("drop", queued_entry, stdout=pipe)
    with await asyncio.to_thread(pipe.open) as told:
        assert await asyncio.to_thread(told.readline) == f"{queued_entry}: dropped\n"
        process.send_signal(number)
        await asyncio.to_thread(process.wait, 60)
    async with opened(audit=audited(tmp_path)):
        pass
    assert steps(tmp_path) == [("dropped", queued_entry, BY)]


async def test_an_action_is_recorded_if_its_command_fails(
    operator: Operator, tmp_path: Path, queued_entry: str
) -> None:
    operator.settings["audit"] = audited(tmp_path)
    process = operator.start("drop", queued_entry, "nothing", stdout=Path("/dev/full"))
    assert await asyncio.to_thread(process.wait, 60) != 0
    assert steps(tmp_path) == [("dropped", queued_entry, BY)]


async def test_a_command_records_pending_audit_records(
    operator: Operator, tmp_path: Path, opened: Open, queued_entry: str
) -> None:
    operator.settings["audit"] = unreachable_audit()
    assert (await operator.run("retry", queued_entry)).code == 0
    operator.settings["audit"] = audited(tmp_path)
    assert (await operator.run("drop", queued_entry)).code == 0
    async with opened(audit=audited(tmp_path)):
        pass
    assert steps(tmp_path) == [("retried", queued_entry, BY), ("dropped", queued_entry, BY)]
