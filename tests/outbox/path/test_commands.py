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
from tests.outbox.path.hospital import Hospital, observation

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
        """One command."""
        self.write()
        return await dhp("outbox", *arguments, "--config", self.config, folder=self.config.parent)

    def begin(self, *arguments: str, stdout: Path) -> ForkedGateway:
        """One command, not waited for."""
        self.write()
        err = self.config.with_name("err")
        err.touch()
        return ForkedGateway(
            ["outbox", *arguments, "--config", str(self.config)], stdout=stdout, stderr=err
        )

    def write(self) -> None:
        """Put the settings where the commands find them."""
        self.config.write_text(yaml.safe_dump(self.settings))


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    """Return an operator on the gateway's machine."""
    return Operator(tmp_path)


@pytest.fixture
async def refused(hospital: Hospital) -> tuple[Hospital, str]:
    """A hospital with an entry that the platform refused."""
    hospital.line.cut()
    location = (await hospital.write(patient=987654)).location
    hospital.answer_writes(outcome(422))
    await hospital.mended(location)
    return hospital, location


async def test_what_waits_for_a_person_is_listed(
    refused: tuple[Hospital, str], operator: Operator
) -> None:
    """A failed entry with its id; for programs as JSON; of one state or caller only, if wanted."""
    entry_id = refused[1].rsplit("/", 1)[1]
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


async def test_patients_are_shown_only_when_asked(
    refused: tuple[Hospital, str], operator: Operator
) -> None:
    """`show` and `export` mask address and bodies unless `--reveal` is given."""
    entry_id = refused[1].rsplit("/", 1)[1]
    masked = await operator.run("show", entry_id)
    assert "failed" in masked.out
    assert "987654" not in masked.out
    assert "Observation/1" not in masked.out
    revealed = await operator.run("show", entry_id, "--reveal")
    assert "Patient/987654" in revealed.out
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
    refused: tuple[Hospital, str], operator: Operator
) -> None:
    """The running gateway notices by itself."""
    hospital, location = refused
    assert (await operator.run("retry", "--cause", "expired")).out == ""
    done = await operator.run("retry", "--failed")
    assert done.code == 0
    assert location.rsplit("/", 1)[1] in done.out
    ended = await hospital.ended(location)
    while not ended.json["entry"][0]["response"]["status"].startswith("200"):
        ended = await hospital.ended(location)
    assert len(hospital.writes()) == 2
    assert (await operator.run("retry", "--cause", "platform-status 422")).out == ""
    assert (await operator.run("retry")).code == 2
    again = await operator.run("retry", location.rsplit("/", 1)[1])
    assert again.code == 1
    assert "delivered" in again.out


async def test_a_dropped_entry_lets_others_go_on(opened: Open, operator: Operator) -> None:
    """An unclear one holds up its patient until a person decides."""
    # A gateway with an audit could be the one that records it.
    async with opened(audit={"sink": "off"}) as hospital:
        unclear = await hospital.unclear_write()
        behind = (await hospital.write(number=2)).location
        assert (await hospital.ask("GET", behind)).status == 202
        dropped = await operator.run("drop", unclear.rsplit("/", 1)[1], "nothing")
        assert dropped.code == 1
        assert "dropped" in dropped.out
        assert "there is no such entry" in dropped.out
        assert '"step":"dropped"' in dropped.out
        assert "noted for the audit" not in dropped.out
        assert (await hospital.ended(behind)).status == 200
        assert (await hospital.ask("GET", unclear)).status == 410


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


async def test_an_unclear_entry_is_shown_in_the_operators_language(
    opened: Open, operator: Operator
) -> None:
    """State, note and yes or no are words of the catalogue; a caller's name is never translated."""
    async with opened(callers=[{"name": "failed", "outbox": "always"}]) as hospital:
        entry_id = (await hospital.unclear_write()).rsplit("/", 1)[1]
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
        ({"url": "sqlite:////nowhere/at/all.db"}, 3, "is not there"),
        ({"url": f"sqlite:////{'long' * 64}/all.db"}, 3, "file name too long"),
    ],
)
async def test_what_cannot_be_opened_is_told(
    refused: tuple[Hospital, str],
    operator: Operator,
    change: dict[str, Any],
    code: int,
    words: str,
) -> None:
    """With the exit code of the other commands, and a sentence."""
    operator.settings["outbox"].update(change)
    done = await operator.run("list")
    assert (done.code, words in done.err) == (code, True), done.err


async def test_check_tells_what_the_outbox_lacks(operator: Operator) -> None:
    """A key of another length, a file without one, a missing extra; nothing when all is there."""
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


async def test_a_gateway_without_its_key_does_not_start(opened: Open, tmp_path: Path) -> None:
    """It reports the wrong setting, instead of enqueuing what cannot be decrypted."""
    async with opened() as hospital:
        hospital.line.cut()
        await hospital.write()
    operator = Operator(tmp_path)
    operator.settings |= {
        "listen": {"address": "127.0.0.1:0"},
        "admin": {"address": "127.0.0.1:0"},
    }
    operator.settings["outbox"]["encryption_key"] = "C" * 43
    operator.write()
    done = await dhp("run", "--config", operator.config)
    told = f"outbox.url: {operator.settings['outbox']['url']} holds entries that were encrypted"
    assert (done.code, told in done.err) == (3, True), done.err


def audited(directory: Path) -> dict[str, Any]:
    """Settings of an audit in a file."""
    return {"sink": "file", "path": str(directory / "audit" / "audit.jsonl")}


def steps(directory: Path) -> list[tuple[str, str, str]]:
    """Step, entry and author of what people did, as the audit has it."""
    lines = (directory / "audit" / "audit.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [(each["step"], each["entry"], each["by"]) for each in records if "by" in each]


async def test_what_is_done_beside_a_gateway_is_in_its_audit_file(
    opened: Open, operator: Operator, tmp_path: Path
) -> None:
    """Who gave up a write is recorded, once, by the gateway that has the file in hand."""
    (tmp_path / "audit").mkdir()
    operator.settings["audit"] = audited(tmp_path)
    async with opened(audit=audited(tmp_path)) as hospital:
        unclear = await hospital.unclear_write()
        behind = (await hospital.write(number=2)).location
        entry_id = unclear.rsplit("/", 1)[1]
        dropped = await operator.run("drop", entry_id)
        assert (dropped.code, "noted for the audit" in dropped.out) == (0, True)
        assert (await operator.run("drop", entry_id)).code == 1
        await hospital.ended(behind)
        while not steps(tmp_path):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.02)
    assert steps(tmp_path) == [("dropped", entry_id, BY)]


async def test_a_command_makes_no_audit_file(
    opened: Open, operator: Operator, tmp_path: Path
) -> None:
    """The file would belong to the command's user; the gateway creates it and writes the record."""
    async with opened() as hospital:
        hospital.line.cut()
        entry_id = (await hospital.write()).location.rsplit("/", 1)[1]
    (tmp_path / "audit").mkdir()
    operator.settings["audit"] = audited(tmp_path)
    assert (await operator.run("drop", entry_id)).code == 0
    assert list((tmp_path / "audit").iterdir()) == []
    async with opened(audit=audited(tmp_path)):
        pass
    assert steps(tmp_path) == [("dropped", entry_id, BY)]


@pytest.fixture
async def queued(opened: Open, tmp_path: Path) -> str:
    """An entry whose gateway is stopped; its audit file is there."""
    (tmp_path / "audit").mkdir()
    async with opened(audit=audited(tmp_path)) as hospital:
        hospital.line.cut()
        return (await hospital.write()).location.rsplit("/", 1)[1]


async def test_a_command_writes_its_own_audit_file_while_nobody_else_does(
    operator: Operator, tmp_path: Path, queued: str
) -> None:
    """With the gateway stopped, the user whose file it is need not wait for its next start."""
    operator.settings["audit"] = audited(tmp_path)
    assert (await operator.run("drop", queued, "--reason", "entered anew")).code == 0
    assert [step for step, *_ in steps(tmp_path)] == ["dropped"]
    assert '"reason":"entered anew"' in (tmp_path / "audit" / "audit.jsonl").read_text()


def nobody_listens(**more: str) -> dict[str, Any]:
    """Settings of an audit that cannot be written now."""
    return {"sink": "syslog", "syslog_url": f"tcp://127.0.0.1:{free_port()}", **more}


@pytest.mark.parametrize("on_failure", ["block", "drop"])
async def test_a_step_that_the_audit_cannot_take_stays_noted(
    opened: Open, operator: Operator, tmp_path: Path, queued: str, on_failure: str
) -> None:
    """The command says so, and the next process that can write the audit records it."""
    operator.settings["audit"] = nobody_listens(on_failure=on_failure)
    dropped = await operator.run("drop", queued)
    assert dropped.code == 0
    assert "the audit cannot be written; noted for the audit" in dropped.out
    async with opened(audit=audited(tmp_path)):
        pass
    assert steps(tmp_path) == [("dropped", queued, BY)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_a_step_is_recorded_although_its_command_is_interrupted(
    opened: Open, operator: Operator, tmp_path: Path, queued: str, number: signal.Signals
) -> None:
    """Whatever ends the command once a write is given up, the next gateway knows who did it."""
    operator.settings["audit"] = nobody_listens()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    process = operator.begin("drop", queued, stdout=pipe)
    with await asyncio.to_thread(pipe.open) as told:
        assert await asyncio.to_thread(told.readline) == f"{queued}: dropped\n"
        process.send_signal(number)
        await asyncio.to_thread(process.wait, 60)
    async with opened(audit=audited(tmp_path)):
        pass
    assert steps(tmp_path) == [("dropped", queued, BY)]


async def test_a_step_is_recorded_although_its_command_fails_midway(
    operator: Operator, tmp_path: Path, queued: str
) -> None:
    """Here it cannot say what it has done; its own audit file has that all the same."""
    operator.settings["audit"] = audited(tmp_path)
    process = operator.begin("drop", queued, "nothing", stdout=Path("/dev/full"))
    assert await asyncio.to_thread(process.wait, 60) != 0
    assert steps(tmp_path) == [("dropped", queued, BY)]


async def test_a_command_records_what_others_have_noted(
    operator: Operator, tmp_path: Path, opened: Open, queued: str
) -> None:
    """What an earlier one could not write need not wait for a gateway; no step is there twice."""
    operator.settings["audit"] = nobody_listens()
    assert (await operator.run("retry", queued)).code == 0
    operator.settings["audit"] = audited(tmp_path)
    assert (await operator.run("drop", queued)).code == 0
    async with opened(audit=audited(tmp_path)):
        pass
    assert steps(tmp_path) == [("retried", queued, BY), ("dropped", queued, BY)]
