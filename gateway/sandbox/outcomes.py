"""OperationOutcomes, and the exception that ends an interaction with one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.sandbox.codec import JsonObject


@dataclass(frozen=True, slots=True)
class Issue:
    """One issue; `code` is from issue-type, `expression` a FHIRPath to the element.

    `text` are the platform's own words, where they are known.
    """

    code: str
    diagnostics: str
    expression: str | None = None
    severity: str = "error"
    text: str | None = None

    def below(self, prefix: str) -> Issue:
        """The same issue as seen from a Bundle whose entry at `prefix` holds the resource."""
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
        """The OperationOutcome."""
        return operation_outcome(*self.issues)


def fhir_error(
    status: int, code: str, diagnostics: str, expression: str | None = None
) -> FhirError:
    """A problem with one issue."""
    return FhirError(status, Issue(code, diagnostics, expression))


def operation_outcome(*issues: Issue) -> JsonObject:
    """An OperationOutcome of these issues."""
    return {"resourceType": "OperationOutcome", "issue": [_render(issue) for issue in issues]}


def informational_outcome(text: str) -> JsonObject:
    """An OperationOutcome that says that all is well."""
    return operation_outcome(Issue("informational", text, severity="information"))


def _render(issue: Issue) -> JsonObject:
    rendered: JsonObject = {"severity": issue.severity, "code": issue.code}
    if issue.text is not None:
        rendered["details"] = {"text": issue.text}
    rendered["diagnostics"] = issue.diagnostics
    if issue.expression is not None:
        rendered["expression"] = [issue.expression]
    return rendered
