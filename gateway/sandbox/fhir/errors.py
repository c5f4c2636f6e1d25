"""OperationOutcomes, and the exception that ends an interaction with one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.sandbox.fhir.json_codec import JsonObject


@dataclass(frozen=True, slots=True)
class Issue:
    """One issue; `code` is from issue-type, `expression` a FHIRPath to the element.

    `text` is the wording of the national platform, if it is known.
    """

    code: str
    diagnostics: str
    expression: str | None = None
    severity: str = "error"
    text: str | None = None

    def below(self, prefix: str) -> Issue:
        """Return the issue for a Bundle in which `prefix` is the expression of the resource."""
        _, dot, path = (self.expression or "").partition(".")
        return replace(self, expression=f"{prefix}{dot}{path}")


class FhirError(Exception):
    """Ends an interaction: the HTTP status and the issues of its OperationOutcome."""

    def __init__(
        self, status: int, *issues: Issue, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(status)
        self.status = status
        self.issues = issues
        self.headers = headers

    def outcome(self) -> JsonObject:
        """Return the OperationOutcome."""
        return operation_outcome(*self.issues)


def fhir_error(
    status: int, code: str, diagnostics: str, expression: str | None = None
) -> FhirError:
    """Return an error with one issue."""
    return FhirError(status, Issue(code, diagnostics, expression))


def operation_outcome(*issues: Issue) -> JsonObject:
    """Return an OperationOutcome of these issues."""
    return {"resourceType": "OperationOutcome", "issue": [_render(issue) for issue in issues]}


def informational_outcome(text: str) -> JsonObject:
    """Return an OperationOutcome that reports success."""
    return operation_outcome(Issue("informational", text, severity="information"))


def _render(issue: Issue) -> JsonObject:
    rendered: JsonObject = {"severity": issue.severity, "code": issue.code}
    if issue.text is not None:
        rendered["details"] = {"text": issue.text}
    rendered["diagnostics"] = issue.diagnostics
    if issue.expression is not None:
        rendered["expression"] = [issue.expression]
    return rendered
