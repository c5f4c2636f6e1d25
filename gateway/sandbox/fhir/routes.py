"""The platform's FHIR R5 RESTful API over HTTP: routes, bearer check, header fields and bodies.

`interactions` implements the interactions, `transactions` the processing of Bundles.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from gateway.sandbox.fhir import json_codec, responses
from gateway.sandbox.fhir.errors import (
    FhirError,
    Issue,
    fhir_error,
    informational_outcome,
    operation_outcome,
)
from gateway.sandbox.fhir.interactions import InteractionResult, Interactions
from gateway.sandbox.fhir.json_codec import JsonObject
from gateway.sandbox.fhir.operations import OperationParameters, Operations
from gateway.sandbox.fhir.resource_validation import Validator
from gateway.sandbox.fhir.responses import BearerGuard
from gateway.sandbox.fhir.transactions import Transactions

PATH: Final = "/fhir"

_TYPE: Final = r"(?P<type_>[A-Z][A-Za-z]*)"
_ID: Final = r"(?P<id_>[^/_$][^/]*)"
_OPERATION: Final = r"\$(?P<name>[A-Za-z-]+)"
_FORM: Final = "application/x-www-form-urlencoded"

Handler = Callable[..., Awaitable[web.Response]]


@dataclass(frozen=True, slots=True)
class _Route:
    method: str
    path: re.Pattern[str]
    interaction: str
    handler: Handler


class FhirServer:
    """Handles every request below the base URL.

    `always_gzips_statement`: even if Accept-Encoding does not allow it.
    """

    def __init__(
        self,
        *,
        guard: BearerGuard,
        interactions: Interactions,
        transactions: Transactions,
        operations: Operations,
        validator: Validator,
        statement: JsonObject,
        always_gzips_statement: bool,
    ) -> None:
        self._guard = guard
        self._interactions = interactions
        self._transactions = transactions
        self._operations = operations
        self._validator = validator
        self._statement = statement
        self._always_gzips_statement = always_gzips_statement
        self._types = interactions.types
        self._routes = [
            _Route(method, re.compile(path), interaction, handler)
            for method, path, interaction, handler in (
                ("GET", "metadata", "", self._capabilities),
                ("POST", "", "", self._bundle),
                ("GET", _TYPE, "search-type", self._search),
                ("POST", _TYPE, "create", self._create),
                ("POST", f"{_TYPE}/_search", "search-type", self._search),
                ("GET", f"{_TYPE}/_history", "history-type", self._history),
                ("POST", rf"{_TYPE}(?:/{_ID})?/\$validate", "validate", self._validate),
                ("GET", rf"{_TYPE}(?:/{_ID})?/{_OPERATION}", "", self._operation),
                ("POST", rf"{_TYPE}(?:/{_ID})?/{_OPERATION}", "", self._operation),
                ("GET", f"{_TYPE}/{_ID}", "read", self._read),
                ("PUT", f"{_TYPE}/{_ID}", "update", self._update),
                ("DELETE", f"{_TYPE}/{_ID}", "delete", self._delete),
                ("GET", f"{_TYPE}/{_ID}/_history", "history-instance", self._history),
                ("GET", f"{_TYPE}/{_ID}/_history/(?P<number>[^/]+)", "vread", self._vread),
            )
        ]

    async def handle(self, request: web.Request) -> web.Response:
        """Handle a request below the base URL. Errors become an OperationOutcome."""
        try:
            self._guard.check(request)
            return await self._dispatch(request)
        except web.HTTPRequestEntityTooLarge:
            return responses.error_response(
                request, fhir_error(413, "too-long", "the body is too large")
            )
        except FhirError as error:
            return responses.error_response(request, error)

    async def _dispatch(self, request: web.Request) -> web.Response:
        matching = self._matching(request)
        type_ = matching[0][1].groupdict().get("type_")
        method = "GET" if request.method == "HEAD" else request.method
        allowed = [(r, m) for r, m in matching if self._has(type_, r.interaction)]
        for route, match in allowed:
            if route.method == method:
                if type_ != "Binary" or route.interaction != "read":
                    responses.require_json_accepted(request)
                return await route.handler(request, **match.groupdict())
        methods = ", ".join(sorted({route.method for route, _ in allowed}))
        issue = Issue("not-supported", "this method is not supported here")
        raise FhirError(405, issue, headers=(("Allow", methods),))

    def _matching(self, request: web.Request) -> list[tuple[_Route, re.Match[str]]]:
        """Return the routes of this path for any method, at least one. Raises FhirError 404."""
        path = _path(request)
        matching = [
            (route, match) for route in self._routes if (match := route.path.fullmatch(path))
        ]
        if not matching:
            raise fhir_error(404, "not-found", "there is nothing at this path")
        type_ = matching[0][1].groupdict().get("type_")
        if type_ is not None and type_ not in self._types:
            raise fhir_error(404, "not-supported", "there is no resource type of that name here")
        return matching

    def _has(self, type_: str | None, interaction: str) -> bool:
        """Return whether the type supports the interaction. An empty name is always supported."""
        if not interaction or type_ is None:
            return not interaction
        declared = self._types[type_]
        return interaction in declared.interactions or interaction in declared.operations

    async def _capabilities(self, request: web.Request) -> web.Response:
        response = responses.json_response(request, self._statement)
        return responses.gzipped(response) if self._always_gzips_statement else response

    async def _read(self, request: web.Request, type_: str, id_: str) -> web.Response:
        result = self._interactions.read(type_, id_)
        if type_ == "Binary" and responses.wants_native_binary(request):
            return responses.native_binary(result)
        responses.require_json_accepted(request)
        return responses.resource_response(request, result)

    async def _vread(self, request: web.Request, type_: str, id_: str, number: str) -> web.Response:
        return responses.resource_response(request, self._interactions.vread(type_, id_, number))

    async def _create(self, request: web.Request, type_: str) -> web.Response:
        resource = await self._resource(request, type_)
        await self._validator.require_valid(resource)
        if_none_exist = request.headers.get("If-None-Exist")
        result = self._interactions.create(type_, resource, if_none_exist=if_none_exist)
        return self._written(request, result)

    async def _update(self, request: web.Request, type_: str, id_: str) -> web.Response:
        resource = await self._resource(request, type_, id_)
        await self._validator.require_valid(resource)
        if_match = request.headers.get("If-Match")
        return self._written(request, self._interactions.update(type_, id_, resource, if_match))

    async def _delete(self, request: web.Request, type_: str, id_: str) -> web.Response:
        result = self._interactions.delete(type_, id_, request.headers.get("If-Match"))
        headers = {"ETag": result.version.etag} if result.version else {}
        return responses.json_response(request, result.resource, headers=headers)

    async def _history(
        self, request: web.Request, type_: str, id_: str | None = None
    ) -> web.Response:
        pairs = list(request.query.items())
        return responses.json_response(
            request, self._interactions.history(type_, id_, pairs).resource
        )

    async def _search(self, request: web.Request, type_: str) -> web.Response:
        pairs = list(request.query.items())
        if request.method == "POST":
            pairs += await _form(request)
        strict = responses.is_strict(request)
        return responses.json_response(
            request, self._interactions.search(type_, pairs, strict=strict).resource
        )

    async def _bundle(self, request: web.Request) -> web.Response:
        bundle = await _document(request)
        if bundle.get("resourceType") != "Bundle":
            raise fhir_error(400, "structure", "a Bundle is needed", "Bundle")
        return_preference = responses.parse_return_preference(request)
        return responses.json_response(
            request, await self._transactions.process(bundle, return_preference)
        )

    async def _validate(
        self, request: web.Request, type_: str, id_: str | None = None
    ) -> web.Response:
        resource = _parameter(await _document(request))
        _require_type(resource, type_)
        issues = await self._validator.issues(resource)
        outcome = (
            operation_outcome(*issues) if issues else informational_outcome("the resource is valid")
        )
        return responses.json_response(request, outcome)

    async def _operation(
        self, request: web.Request, type_: str, name: str, id_: str | None = None
    ) -> web.Response:
        arguments = OperationParameters(list(request.query.items()), responses.languages(request))
        if request.method == "POST":
            arguments = arguments.with_body(await _document(request))
        answer = self._operations.perform(type_, id_, name, arguments)
        return responses.json_response(request, answer)

    async def _resource(
        self, request: web.Request, type_: str, id_: str | None = None
    ) -> JsonObject:
        if type_ == "Binary" and request.content_type not in responses.JSON_TYPES:
            data = base64.b64encode(await request.read()).decode()
            identity = {} if id_ is None else {"id": id_}
            content_type = request.headers.get("Content-Type", "application/octet-stream")
            return {"resourceType": type_, **identity, "contentType": content_type, "data": data}
        resource = await _document(request)
        _require_type(resource, type_)
        return resource

    def _written(self, request: web.Request, result: InteractionResult) -> web.Response:
        headers = responses.version_headers(result)
        if result.has_location and result.version is not None:
            headers["Location"] = f"{self._interactions.base}/{result.version.path}"
        return_preference = responses.parse_return_preference(request)
        if return_preference == "minimal":
            return web.Response(status=result.status, headers=headers)
        if return_preference == "OperationOutcome":
            return responses.json_response(
                request, informational_outcome("done"), result.status, headers
            )
        return responses.resource_response(request, result, headers)


def _path(request: web.Request) -> str:
    """Return the path below the base URL, each segment decoded. Raises FhirError 400."""
    raw = request.rel_url.raw_path.removeprefix(PATH).strip("/")
    segments = [unquote(segment) for segment in raw.split("/")]
    if any("/" in segment for segment in segments):
        raise fhir_error(400, "invalid", "a segment of the path holds a slash")
    return "/".join(segments)


async def _document(request: web.Request) -> JsonObject:
    if request.content_type not in responses.JSON_TYPES:
        text = f"the body must be sent as {responses.FHIR_JSON}"
        raise fhir_error(415, "not-supported", text)
    try:
        return json_codec.parse(await request.read())
    except ValueError as error:
        raise fhir_error(400, "structure", str(error)) from None


async def _form(request: web.Request) -> list[tuple[str, str]]:
    if request.content_type != _FORM:
        raise fhir_error(415, "not-supported", f"a search is posted as {_FORM}")
    try:
        text = (await request.read()).decode()
        return parse_qsl(text, keep_blank_values=True, errors="strict")
    except ValueError:
        raise fhir_error(400, "structure", "the body is not UTF-8") from None


def _parameter(document: JsonObject) -> JsonObject:
    """Return the resource to validate, which may be sent as the parameter `resource`."""
    if document.get("resourceType") != "Parameters":
        return document
    parameters = document.get("parameter")
    for parameter in parameters if isinstance(parameters, list) else []:
        if isinstance(parameter, dict) and parameter.get("name") == "resource":
            resource = parameter.get("resource")
            return resource if isinstance(resource, dict) else {}
    raise fhir_error(400, "required", "the parameter resource is missing", "Parameters.parameter")


def _require_type(resource: JsonObject, type_: str) -> None:
    if resource.get("resourceType") != type_:
        raise fhir_error(400, "structure", f"the body must be a {type_}", "resourceType")
