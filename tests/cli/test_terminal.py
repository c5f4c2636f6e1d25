"""The language of the commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from tests.doubles.command import SECRET, dhp

MISTAKES = {
    "environment": "playgrund",
    "retries": {"max_attempts": "two"},
    "credentials": {"default": {}},
}


def settings(folder: Path, **more: object) -> Path:
    client = {"client_id": "hospital-17", "client_secret": SECRET}
    file = folder / "gateway.yaml"
    file.write_text(
        yaml.safe_dump(
            {"environment": "dhp-playground", "credentials": {"default": client}, **more}
        )
    )
    return file


@pytest.mark.parametrize(
    ("before", "behind", "environ", "word"),
    [
        ((), (), {}, "must be a whole number"),
        ((), (), {"LANG": "ru_RU.UTF-8"}, "должно быть целым числом"),
        ((), ("--lang", "uz"), {"LANG": "ru_RU.UTF-8"}, "butun son bo‘lishi kerak"),
        (("--lang", "ru"), (), {}, "должно быть целым числом"),
        (("--lang", "ru"), ("--lang", "en"), {}, "must be a whole number"),
    ],
)
async def test_the_option_lang_overrides_the_environment(
    before: Sequence[str],
    behind: Sequence[str],
    environ: Mapping[str, str],
    word: str,
    tmp_path: Path,
) -> None:
    file = settings(tmp_path, **MISTAKES)
    plain = {"LC_ALL": "", "LC_MESSAGES": "", "LANG": ""}
    result = await dhp(*before, "check", "--config", file, *behind, environ={**plain, **environ})
    assert result.code == 2
    assert f"retries.max_attempts: {word}" in result.out
