"""Writes the documents that are made from code; with `--check` only says which are out of date."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from gateway.config import reference, schema
from gateway.fhir import catalogue

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "deploy" / "helm" / "dhp-gateway" / "values.schema.json"


def documents() -> dict[Path, str]:
    """Every generated file with the content it should have."""
    chart = {CHART: chart_schema()} if CHART.exists() else {}
    return chart | {
        ROOT / "docs" / "settings.md": reference.markdown(),
        ROOT / "docs" / "settings.ru.md": reference.markdown("ru"),
        ROOT / "docs" / "errors.md": catalogue.markdown(),
        ROOT / "docs" / "errors.ru.md": catalogue.markdown("ru"),
        ROOT / "docs" / "errors.uz.md": catalogue.markdown("uz"),
        ROOT / "config" / "reference.yaml": reference.reference_yaml(),
    }


def chart_schema() -> str:
    """The schema of the Helm chart's values: what stands there, with the settings of today."""
    values = json.loads(CHART.read_text(encoding="utf-8"))
    settings = schema.json_schema()
    values["$defs"] = settings.pop("$defs")
    del settings["$schema"]
    values["properties"]["settings"] = settings
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Exit code 0, or 1 when `--check` finds a file out of date."""
    stale = []
    for path, content in documents().items():
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            stale.append(path)
            if "--check" not in arguments:
                path.write_text(content, encoding="utf-8")
    verb = "is out of date: run `make docs`" if "--check" in arguments else "written"
    for path in stale:
        sys.stdout.write(f"{path.relative_to(ROOT)} {verb}\n")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
