"""FHIR models accept every OperationOutcome of the gateway in XML."""

from __future__ import annotations

import json
from pathlib import Path

from gateway.errors import REASONS, GatewayError
from gateway.fhir.operation_outcome import error_outcome, write_resource
from gateway.i18n import LANGUAGES
from tests.environments import output_of

# Run where lxml is; the models' XML reader needs it. Gives what it read, as JSON.
READER = """
import json, pathlib, sys
from fhir.resources.operationoutcome import OperationOutcome
read = {}
for file in pathlib.Path(sys.argv[1]).glob("*.xml"):
    outcome = OperationOutcome.model_validate_xml(file.read_bytes())
    read[file.stem] = json.loads(outcome.model_dump_json())
print(json.dumps(read))
"""


def test_fhir_models_read_every_outcome_in_xml(fhirstarter_python: Path, tmp_path: Path) -> None:
    expected = {}
    for reason in REASONS.values():
        for language in LANGUAGES:
            error = GatewayError(reason, hint='a <b> & "c"', upstream_status=502, retry_after=1)
            name = f"{reason.code}.{language}"
            outcome = error_outcome(error, request_id="a-1", language=language, attempts=2)
            forms = [write_resource(outcome, xml=xml)[0] for xml in (False, True)]
            expected[name] = json.loads(forms[0])
            (tmp_path / f"{name}.xml").write_bytes(forms[1])
    command = [str(fhirstarter_python), "-c", READER, str(tmp_path)]
    assert json.loads(output_of(command)) == expected
    assert len(expected) == len(REASONS) * len(LANGUAGES) > 75
