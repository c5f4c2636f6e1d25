"""The sandbox: one listener with the SSO and the platform, its faults and its log.

`ExamplePage` is an example of a hospital's web page that signs in through the gateway and lists
patients. It is served by the platform's listener, not by the gateway: a separate origin, as in
production. It demonstrates that a page needs neither a token nor a library, only the options
`credentials` and `headers` of `fetch`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import random
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from string import Template
from typing import Final

from aiohttp import web
from joserfc.jwk import RSAKey

from gateway.sandbox import example_data
from gateway.sandbox.events import EVENT, SandboxEvent, line
from gateway.sandbox.example_data import page_text
from gateway.sandbox.fault_answers import fault_response
from gateway.sandbox.fhir import routes as fhir_routes
from gateway.sandbox.fhir.declared_types import capability_statement, declared
from gateway.sandbox.fhir.interactions import Interactions
from gateway.sandbox.fhir.operations import Operations
from gateway.sandbox.fhir.resource_store import ResourceStore
from gateway.sandbox.fhir.resource_validation import Validator
from gateway.sandbox.fhir.responses import BearerGuard
from gateway.sandbox.fhir.transactions import Transactions
from gateway.sandbox.options import HOST, Faults, SandboxOptions, Side
from gateway.sandbox.sso import routes as sso_routes
from gateway.sandbox.sso.clients import Clients
from gateway.sandbox.sso.grants import Grants, TokenAuthority, new_key

# The path of the example page, which exists only with `gateway_url`.
EXAMPLE_PATH: Final = "/example"

_STYLE: Final = page_text("example_page.css")
_SCRIPT: Final = Template(page_text("example_page.js"))
# The value of `$audit` in the page if there is an audit file.
_AUDIT: Final = Template(page_text("example_audit.html"))
_DOCUMENT: Final = Template(page_text("example_page.html"))


class ExamplePage:
    """The page for one gateway; `gateway_url` is its origin, without a path.

    `audit` is the audit file that has a record of each request, if there is one.
    """

    def __init__(self, gateway_url: str, audit: str | None = None) -> None:
        script = _SCRIPT.substitute(gateway=gateway_url)
        told = "" if audit is None else _AUDIT.substitute(file=html.escape(audit))
        self._page = _DOCUMENT.substitute(style=_STYLE, script=script, audit=told)
        self._headers = {
            "Cache-Control": "no-store",
            "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; "
            f"frame-ancestors 'none'; connect-src {gateway_url}; "
            f"style-src '{_hash(_STYLE)}'; script-src '{_hash(script)}'",
            "Referrer-Policy": "no-referrer",
        }

    async def show(self, request: web.Request) -> web.Response:
        """Return the page."""
        return web.Response(text=self._page, content_type="text/html", headers=self._headers)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


_MAX_BODY: Final = 64 * 1024 * 1024
_STOP_TIMEOUT: Final = 1.0

Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Sandbox:
    """An embedded DHP platform; `origin` is the URL of its listener, without a path.

    `clock` returns Unix time, `rng` selects the tokens that are rejected on purpose, `log` is
    called with one line for each request, `sleep` waits for the configured delays.
    """

    def __init__(
        self,
        options: SandboxOptions | None = None,
        *,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
        log: Callable[[str], None] = lambda line: None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._options = options or SandboxOptions()
        self._clock = clock
        self._rng = rng or random.Random()  # nosec B311 # noqa: S311 - chooses faults, not secrets
        self._log = log
        self._sleep = sleep
        self._runner: web.AppRunner | None = None
        self.origin = f"http://{HOST}:{self._options.port}"

    async def start(self) -> None:
        """Listen. Raises OSError if the address is not available."""
        listener = socket.create_server((HOST, self._options.port))
        try:
            self.origin = f"http://{HOST}:{listener.getsockname()[1]}"
            app = self._application(await asyncio.to_thread(new_key))
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=_STOP_TIMEOUT)
            await runner.setup()
            await web.SockSite(runner, listener).start()
        except BaseException:
            listener.close()
            raise
        self._runner = runner

    def set_faults(self, faults: Faults) -> None:
        """Replace the simulated faults.

        The token lifetime and the share of rejected tokens change only with the next `start`.
        """
        self._options = replace(self._options, faults=faults)

    async def stop(self) -> None:
        """Close the listener and its connections. A second call does nothing."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    @property
    def fhir_base_url(self) -> str:
        """The base URL of the platform on the listener."""
        return f"{self.origin}{fhir_routes.PATH}"

    @property
    def link_base_url(self) -> str:
        """The base in the platform's links: `public_url` if that is set, else `fhir_base_url`."""
        return (self._options.public_url or self.fhir_base_url).rstrip("/")

    @property
    def token_url(self) -> str:
        """The URL of the SSO's token endpoint."""
        return f"{self.origin}{sso_routes.TOKEN_PATH}"

    @property
    def authorize_url(self) -> str:
        """The URL of the SSO's sign-in page."""
        return f"{self.origin}{sso_routes.AUTHORIZE_PATH}"

    def _application(self, key: RSAKey) -> web.Application:
        tokens = TokenAuthority(
            key,
            issuer=self.origin,
            audience=self.link_base_url,
            lifetime=self._options.faults.token_lifetime,
            clock=self._clock,
        )
        app = web.Application(client_max_size=_MAX_BODY, middlewares=[self._observe])
        app.add_routes(self._sso(tokens).routes())
        if self._options.gateway_url is not None:
            page = ExamplePage(self._options.gateway_url, self._options.gateway_audit)
            app.router.add_get(EXAMPLE_PATH, page.show)
        app.router.add_route(
            "*", fhir_routes.PATH + "{path:(?s:/.*)?}", self._platform(tokens).handle
        )
        return app

    def _sso(self, tokens: TokenAuthority) -> sso_routes.Sso:
        return sso_routes.Sso(self._options, Clients(self._options), Grants(self._clock), tokens)

    def _platform(self, tokens: TokenAuthority) -> fhir_routes.FhirServer:
        base, lenient = self.link_base_url, self._options.lenient
        store, validator = self._store(base), Validator()
        interactions = Interactions(store, base, declared(lenient=lenient), conditional=lenient)
        reject = self._options.faults.reject_tokens
        started = datetime.fromtimestamp(self._clock(), UTC)
        statement = capability_statement(base, started, interactions.types, lenient=lenient)
        return fhir_routes.FhirServer(
            guard=BearerGuard(tokens, reject=reject, rng=self._rng),
            interactions=interactions,
            transactions=Transactions(interactions, store, validator),
            operations=Operations(store, interactions),
            validator=validator,
            statement=statement,
            always_gzips_statement=not lenient,
        )

    def _store(self, base: str) -> ResourceStore:
        store = ResourceStore(self._clock, self._options.search_lag)
        for resource in (*example_data.examples(base), *example_data.terminology()):
            store.load(resource)
        return store

    @web.middleware
    async def _observe(self, request: web.Request, handler: Handle) -> web.StreamResponse:
        """Handle every request: delay it, let it fail if configured, and log it."""
        event = request[EVENT] = SandboxEvent()
        side = _side(request)
        status = "ended without an answer"
        try:
            response = await self._answer(request, side, handler)
            status = str(response.status)
            return response
        except web.HTTPException as error:
            status = str(error.status)
            raise
        finally:
            self._log(line(side, request, event.result or status, event.note))

    async def _answer(
        self, request: web.Request, side: Side, handler: Handle
    ) -> web.StreamResponse:
        delay = self._options.faults.delays.get(side)
        if delay:
            await self._sleep(delay)
        failure = self._options.faults.failures.get(side)
        if failure is None:
            return await handler(request)
        request[EVENT].note = "failed on purpose"
        return fault_response(request, side, failure)


def _side(request: web.Request) -> Side:
    path = request.rel_url.raw_path
    return (
        "platform" if path == fhir_routes.PATH or path.startswith(f"{fhir_routes.PATH}/") else "sso"
    )
