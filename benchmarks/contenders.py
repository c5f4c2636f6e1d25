"""The contenders: how each is configured and started, all with the same platform and SSO."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.prerequisites import (
    REPOSITORY,
    provide_compiled,
    provide_envoy,
    provide_go_program,
    provide_java_program,
)
from benchmarks.processes import free_port
from benchmarks.surroundings import (
    ISSUER,
    TOKEN,
    Surroundings,
    Upstream,
    haproxy_command,
    nginx_command,
)

HERE = Path(__file__).parent
GATEWAY = "gateway"

Command = Sequence[str | Path]
Prepare = Callable[[Surroundings, int, Upstream], Command]
Extra = Callable[[Surroundings, int], dict[str, object]]


@dataclass(frozen=True, slots=True)
class Contender:
    """One proxy under test; `prepare` returns the command that makes it listen on `port`.

    `fetches` means that it requests a token from the SSO, `records` that it writes a log line for
    each request. `forwards` means that it gets no token: its callers send theirs. It is under load
    for at least `warm_up` seconds before it is measured.
    """

    name: str
    description: str
    prepare: Prepare
    fetches: bool = True
    records: bool = True
    forwards: bool = False
    warm_up: float = 0
    port: int = field(default_factory=free_port)


def _file_audit(around: Surroundings, port: int) -> dict[str, object]:
    return {"audit": {"sink": "file", "path": str(around.directory / f"audit-{port}.jsonl")}}


def _sqlite_outbox(around: Surroundings, port: int) -> dict[str, object]:
    key = base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")
    url = f"sqlite:///{around.directory}/outbox-{port}.db"
    return {"outbox": {"enabled": True, "url": url, "encryption_key": key}}


def _no_audit(_around: Surroundings, _port: int) -> dict[str, object]:
    return {"audit": {"sink": "off"}}


def _nothing_else(_around: Surroundings, _port: int) -> dict[str, object]:
    return {}


def gateway_settings(port: int, **more: object) -> dict[str, object]:
    """Return settings of a gateway with one client, and with defaults but for `more`."""
    return {
        "environment": "custom",
        "listen": {"address": f"127.0.0.1:{port}"},
        "admin": {"address": f"127.0.0.1:{free_port()}"},
        "credentials": {"default": {"client_id": "bench", "client_secret": "bench"}},
        **more,
    }


def gateway(
    place: Path | None = None, *, variant: str = GATEWAY, extra: Extra = _nothing_else
) -> Prepare:
    """Return a `Prepare` of the gateway in `place`, or of the installed one.

    Its settings have defaults but for `extra`.
    """
    program = gateway_command(place)

    def prepare(around: Surroundings, port: int, upstream: Upstream) -> Command:
        platform: dict[str, object] = {"fhir_base_url": f"{upstream.origin}/fhir"}
        if upstream.tls:
            platform["ca_file"] = str(around.directory / "ca.pem")
        settings = gateway_settings(
            port, platform=platform, sso={"token_url": upstream.token_url}, **extra(around, port)
        )
        file = around.directory / f"{variant}-{port}.yaml"
        file.write_text(json.dumps(settings))  # JSON is valid YAML
        return [*program, "run", "--config", file]

    return prepare


def _usual_proxy(around: Surroundings, port: int, upstream: Upstream) -> Command:
    authority = [around.directory / "ca.pem"] if upstream.tls else []
    script: list[str | Path] = [sys.executable, HERE / "usual_proxy.py"]
    return [*script, str(port), upstream.origin, upstream.token_url, *authority]


def _envoy(around: Surroundings, port: int, upstream: Upstream) -> Command:
    tls = (HERE / "envoy_tls.yaml").read_text() if upstream.tls else ""
    configuration = around.fill_in(
        "envoy.yaml",
        f"envoy-{port}.yaml",
        records=around.records(port),
        envoy_tls=tls.replace("@DIRECTORY@", str(around.directory)),
        port=port,
        upstream_port=upstream.port,
        token_path=upstream.token_path,
    )
    quiet = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    return [provide_envoy(), "-c", configuration, *quiet]


def _nginx(around: Surroundings, port: int, upstream: Upstream, links: str = "") -> Command:
    configuration = around.fill_in(
        "nginx_proxy.conf",
        f"nginx-{port}.conf",
        filter=links,
        records=around.records(port),
        port=port,
        upstream_port=upstream.port,
        scheme="https" if upstream.tls else "http",
    )
    return nginx_command(configuration, around.directory)


def _nginx_with_links(around: Surroundings, port: int, upstream: Upstream) -> Command:
    """Replace every occurrence of the base, because nginx does not parse JSON."""
    links = f"'{upstream.origin}/fhir' 'http://127.0.0.1:{port}/fhir'"
    return _nginx(
        around, port, upstream, f"sub_filter {links}; sub_filter_once off; sub_filter_types *;"
    )


def _haproxy(around: Surroundings, port: int, upstream: Upstream) -> Command:
    authority = around.directory / "ca.pem"
    tls = f"ssl verify required ca-file {authority} sni str(localhost) verifyhost localhost"
    configuration = around.fill_in(
        "haproxy_proxy.cfg",
        f"haproxy-{port}.cfg",
        port=port,
        upstream_port=upstream.port,
        haproxy_tls=tls if upstream.tls else "",
    )
    return haproxy_command(configuration)


def _caddy(around: Surroundings, port: int, upstream: Upstream) -> Command:
    authority = around.directory / "ca.pem"
    configuration = around.fill_in(
        "Caddyfile",
        f"caddy-{port}",
        port=port,
        origin=upstream.origin,
        caddy_tls=f"tls_trust_pool file {authority}" if upstream.tls else "",
    )
    run = ("run", "--adapter", "caddyfile", "--config", configuration)
    return (provide_go_program("caddy"), *run)


def _oauth2_proxy(around: Surroundings, port: int, upstream: Upstream) -> Command:
    configuration = around.fill_in(
        "oauth2_proxy.yaml",
        f"oauth2-proxy-{port}.yaml",
        port=port,
        origin=upstream.origin,
    )
    authority = around.directory / "ca.pem"
    environment = ("env", f"AUTHORIZATION=Bearer {TOKEN}", f"SSL_CERT_FILE={authority}")
    program = (provide_go_program("oauth2-proxy"), "--alpha-config", configuration)
    nobody = ("--skip-auth-route=.*", "--email-domain=*", f"--cookie-secret={'0' * 32}")
    return (*environment, *program, *nobody)


def _ghostunnel(around: Surroundings, port: int, upstream: Upstream) -> Command:
    """Connect to the platform over TLS, whatever the upstream."""
    target = f"--target=127.0.0.1:{around.upstream('tls').port}"
    tls = (f"--cacert={around.directory / 'ca.pem'}", "--override-server-name=localhost")
    listen = ("client", f"--listen=127.0.0.1:{port}", target, "--disable-authentication")
    return (provide_go_program("ghostunnel"), *listen, *tls)


def _fhir_gateway(around: Surroundings, port: int, upstream: Upstream) -> Command:
    settings = {
        "PROXY_TO": f"{upstream.origin}/fhir",
        "BACKEND_TYPE": "HAPI",
        "TOKEN_ISSUER": ISSUER,
        "ACCESS_CHECKER": "permissive",
        "RUN_MODE": "DEV",  # Without it there is no permissive one.
    }
    environment = [f"{name}={value}" for name, value in settings.items()]
    trusted = f"-Djavax.net.ssl.trustStore={around.directory / 'ca.p12'}"
    tomcat = ("--server.address=127.0.0.1", "--server.tomcat.max-keep-alive-requests=-1")
    program = ("java", trusted, "-jar", provide_java_program("fhir-gateway"))
    return ("env", *environment, *program, f"--server.port={port}", *tomcat)


def gateway_command(place: Path | None) -> Command:
    """Return the command of the gateway in another folder, or of the installed one."""
    if place is None:
        return (Path(sys.executable).with_name("dhp-gateway"),)
    return ("env", f"PYTHONPATH={place.resolve()}", sys.executable, "-P", "-m", "gateway")


def gateways_beside(beside: Path | None, *, plain: bool) -> dict[Path, Command]:
    """Return the commands of this checkout's gateway and of another's, by the checkout's folder.

    This one is compiled unless `plain`, or beside another.
    """
    compiled = None if plain or beside else provide_compiled()
    commands = {REPOSITORY: gateway_command(compiled)}
    if beside:
        commands[beside.resolve()] = (beside.resolve() / ".venv/bin/dhp-gateway",)
    return commands


def every_contender(
    beside: Path | None = None, compiled: Path | None = None
) -> dict[str, Contender]:
    """Return all contenders by name.

    `compiled` is the folder of the gateway's compiled form, `beside` another checkout whose gateway
    is measured too.
    """
    unaudited = gateway(compiled, variant="gateway-unaudited", extra=_no_audit)
    form = "not compiled" if compiled is None else "compiled as in the container image"
    known = [
        Contender(GATEWAY, f"this gateway, audit and metrics on, {form}", gateway(compiled)),
        Contender("gateway-plain", "the same, not compiled", gateway(variant="gateway-plain")),
        Contender("gateway-unaudited", "this gateway without audit", unaudited, records=False),
        Contender(
            "gateway-file",
            "this gateway, audit in hash-chained files, synced to the disk",
            gateway(compiled, variant="gateway-file", extra=_file_audit),
            records=False,
        ),
        Contender(
            "gateway-outbox",
            "this gateway with an empty outbox in SQLite",
            gateway(compiled, variant="gateway-outbox", extra=_sqlite_outbox),
        ),
        Contender("envoy", "Envoy, `credential_injector` with OAuth2, JSON access log", _envoy),
        Contender("nginx", "nginx, fixed token, JSON access log", _nginx, fetches=False),
        Contender(
            "nginx-filter",
            "the same with `sub_filter` on, which replaces the platform's base",
            _nginx_with_links,
            fetches=False,
        ),
        Contender("haproxy", "haproxy, fixed token, JSON access log", _haproxy, fetches=False),
        Contender("usual", "aiohttp application + `ClientSession`, log line", _usual_proxy),
        Contender("caddy", "Caddy, fixed token, JSON access log", _caddy, fetches=False),
        Contender(
            "oauth2-proxy",
            "oauth2-proxy, fixed token without sign-in, request log",
            _oauth2_proxy,
            fetches=False,
        ),
        Contender(
            "fhir-gateway",
            "Google's fhir-gateway, the callers' token, rewrites links, log lines",
            _fhir_gateway,
            fetches=False,
            forwards=True,
            warm_up=15,
        ),
        Contender(
            "ghostunnel",
            "ghostunnel, TCP to TLS, the callers' token, a log line for each connection",
            _ghostunnel,
            fetches=False,
            forwards=True,
        ),
    ]
    if beside is not None:
        other = gateway(beside, variant="beside")
        known.append(Contender("beside", f"the gateway of {beside}", other))
    return {contender.name: contender for contender in known}
