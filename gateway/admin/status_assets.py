"""Style and script of the status page, and the header fields that allow just these two."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--soft:#f1f3f5;--line:#8a929b}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--paper:#15181c;--soft:#22272e;--line:#8a929b}}
body{font:16px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:64rem;margin:0 auto;padding:1rem;overflow-wrap:break-word}
h1{font-size:1.1rem}h2{font-size:1.05rem;margin:1.6rem 0 .4rem}
a{color:inherit}nav a{padding:.4rem}nav a[aria-current]{font-weight:bold}
.care{border:3px solid var(--ink);border-radius:.5rem;padding:.6rem 1rem;background:var(--soft)}
.care h2{margin:0}.care strong{font-size:2rem;display:block}.care.degraded{border-style:dashed}
.care.no{border-style:double;border-width:8px}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
th{background:var(--soft)}figure{margin:.8rem 0}figcaption{margin-bottom:.2rem}
svg{width:100%;height:4rem;background:var(--soft);border-bottom:1px solid var(--line)}
.axis{display:flex;justify-content:space-between;margin:0;font-size:.85rem}
summary{padding:.4rem 0}rect{fill:currentColor}#stale{font-weight:bold}footer{margin-top:2rem}
@media(min-width:50rem){.charts{display:grid;grid-template-columns:1fr 1fr;gap:1rem}}
@media(max-width:40rem){.wide thead{position:absolute;clip-path:inset(50%);height:1px;width:1px;
overflow:hidden}.wide tbody tr{display:block;border-bottom:2px solid var(--line);padding:.3rem 0}
.wide tbody td{display:block;border:0;padding:.1rem .3rem}
.wide td[data-name]::before{content:attr(data-name) ": ";font-weight:bold}}
"""

SCRIPT: Final = """
"use strict";
(() => {
  const SILENCE = 15000;
  const stale = document.getElementById("stale");
  let events = null;
  let heard = Date.now();
  const countDown = () => {
    for (const each of document.querySelectorAll("[data-seconds]")) {
      const left = Math.max(0, Number(each.dataset.seconds) - 1);
      each.dataset.seconds = left;
      each.textContent = left + " s";
    }
  };
  const show = (event) => {
    const news = JSON.parse(event.data);
    const page = new DOMParser().parseFromString(news.main, "text/html");
    const main = document.createElement("main");
    main.append(...page.body.childNodes);
    main.querySelector("details").open = document.querySelector("details").open;
    document.querySelector("main").replaceWith(main);
    document.title = news.title;
    heard = Date.now();
    stale.hidden = true;
  };
  const hangUp = () => {
    if (events) events.close();
    events = null;
  };
  const listen = () => {
    if (events && events.readyState !== EventSource.CLOSED) return;
    events = new EventSource("/status/events?lang=" + document.documentElement.lang);
    events.onmessage = show;
    events.onerror = () => { stale.hidden = false; };
  };
  const look = () => {
    countDown();
    if (document.hidden) return hangUp();
    listen();
    if (Date.now() - heard > SILENCE) stale.hidden = false;
  };
  document.addEventListener("visibilitychange", look);
  setInterval(look, 1000);
  listen();
})();
"""


def _source(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


HEADERS: Final = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src {_source(STYLE)}; script-src {_source(SCRIPT)}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept-Language",
}
