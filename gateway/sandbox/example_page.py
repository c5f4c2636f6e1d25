"""An example of a hospital's web page that signs in through the gateway and lists patients.

It is served by the platform's listener, not by the gateway: a separate origin, as in production. It
demonstrates that a page needs neither a token nor a library, only the options `credentials` and
`headers` of `fetch`.
"""

from __future__ import annotations

import base64
import hashlib
import html
from string import Template
from typing import Final

from aiohttp import web

PATH: Final = "/example"

_STYLE: Final = """
body { font: 1rem/1.5 system-ui, sans-serif; margin: 5vh auto; max-width: 40rem; padding: 0 1rem;
  color: #1b2733; background: #f4f7f9; }
main { background: #fff; border: 1px solid #d5dee5; border-radius: .5rem; padding: 1.5rem; }
h1 { font-size: 1.25rem; margin-top: 0; }
button { font: inherit; padding: .25rem 1rem; }
"""
_SCRIPT: Final = Template("""
const gateway = "$gateway";
const show = (id, text) => { document.getElementById(id).textContent = text; };
const call = (path, options = {}) => fetch(gateway + path, { credentials: "include", ...options });

async function start() {
  const session = await (await call("/auth/session")).json();
  document.getElementById("sign-in").hidden = session.signed_in;
  document.getElementById("sign-out").hidden = !session.signed_in;
  show("who", session.signed_in ? "Signed in: " + (session.name || session.user) : "Nobody is signed in.");
  const list = document.getElementById("patients");
  list.replaceChildren();
  if (!session.signed_in) return;
  const answer = await call("/fhir/Patient", { headers: { Accept: "application/fhir+json" } });
  const bundle = await answer.json();
  for (const { resource } of bundle.entry ?? []) {
    if (resource.resourceType !== "Patient") continue;
    const name = (resource.name ?? [{}])[0];
    const item = document.createElement("li");
    item.textContent = [...(name.given ?? []), name.family ?? "", resource.birthDate ?? ""].join(" ");
    list.append(item);
  }
}

document.getElementById("sign-in").onclick = () => {
  location.href = gateway + "/auth/login?return_to=" + encodeURIComponent(location.href);
};
document.getElementById("sign-out").onclick = async () => {
  await call("/auth/logout", { method: "POST", headers: { "X-Requested-With": "example" } });
  await start();
};
start().catch(() => show("who", "The gateway does not answer."));
""")  # noqa: E501 - lines of another language
_AUDIT: Final = Template("""\
<p>The gateway's audit says who asked for what: <code>tail $file</code></p>
""")
_DOCUMENT: Final = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Patients</title>
<style>$style</style>
</head>
<body><main>
<h1>Patients</h1>
<p id="who"></p>
<p><button id="sign-in" hidden>Sign in</button><button id="sign-out" hidden>Sign out</button></p>
<ul id="patients"></ul>
$audit</main>
<script>$script</script>
</body>
</html>
""")


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
