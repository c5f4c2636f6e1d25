"""Style and script of the status page, and the header fields that allow only these two.

The other pages for operators share `STYLE`, `TIMES` and `headers`.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--ink:#1c2128;--soft:#57606a;--paper:#f6f8fa;--card:#fff;
--line:#c6cdd5;--bar:#0b5cad;--refused:#c77700;--bad:#b42318;--yes:#0f6b34;--yes-bg:#e3f4e8;--degraded:#7a4a00;
--degraded-bg:#fff3d6;--no:#a1160f;--no-bg:#fde7e5}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#a3acb7;--paper:#12161b;--card:#1b2027;
--line:#3d4650;--bar:#6cb6ff;--refused:#d9a441;--bad:#ff8a80;--yes:#7ee2a0;--yes-bg:#12301d;--degraded:#ffd479;
--degraded-bg:#352808;--no:#ffb4ab;--no-bg:#45120e}}
*{box-sizing:border-box}
body{font:16px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:0 auto;
max-width:72rem;padding:.75rem 1rem 2rem;overflow-wrap:anywhere}
a{color:inherit}p{margin:0}
header{display:flex;flex-wrap:wrap;align-items:baseline;gap:.25rem 1rem;margin-bottom:.75rem}
h1{font-size:1rem;margin:0}h2{font-size:1.05rem;margin:0 0 .6rem}h3{font-size:.875rem;margin:0;
color:var(--soft);font-weight:600}
nav{margin-left:auto}nav a{display:inline-block;padding:.25rem .6rem;min-width:2.75rem;
text-align:center;text-decoration:none;border:1px solid transparent;border-radius:.4rem}
nav a[aria-current]{font-weight:700;border-color:var(--line);background:var(--card)}
#stale{flex-basis:100%;border:3px dashed currentColor;border-radius:.6rem;padding:.75rem 1rem;
color:var(--no);background:var(--no-bg);font-size:1.15rem;font-weight:700}
[hidden]{display:none!important}.old main{filter:grayscale(1);opacity:.6}
#said{position:absolute;width:1px;height:1px;overflow:hidden;
clip-path:inset(50%);white-space:nowrap}
.badge{border:1px solid var(--soft);border-radius:.4rem;padding:0 .5rem;background:none}
main{display:grid;gap:1rem}#about{font-size:.9rem;color:var(--soft);margin-bottom:-.5rem}
[data-seconds],time,.number{white-space:nowrap}
code{font-size:.95em;padding:.05em .3em;border-radius:.25em;
background:color-mix(in srgb,currentColor 12%,transparent)}
.care{display:flex;gap:1rem;align-items:center;border:2px solid;border-radius:.8rem;
padding:1rem 1.25rem}
.care svg{flex:none;width:4.5rem;height:4.5rem}.care h2{font-size:1rem;font-weight:600;margin:0}
.care strong{display:block;font-size:2.5rem;line-height:1.15}.care p{color:var(--ink)}
.yes{color:var(--yes)}.untried{color:var(--soft)}.degraded{color:var(--degraded)}.no{color:var(--no)}
.care.yes{background:var(--yes-bg)}.care.untried{background:var(--card);border-style:dotted}.care.degraded{background:var(--degraded-bg);
border-style:dashed}.care.no{background:var(--no-bg);border-style:double;border-width:6px}
.glance{display:grid;gap:.75rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,12.5rem),1fr))}
.card{background:var(--card);border:1px solid var(--line);border-radius:.7rem;padding:.8rem 1rem}
.glance .card b{display:block;font-size:1.45rem;line-height:1.3;font-variant-numeric:tabular-nums}
.glance p{font-size:.9rem;color:var(--soft)}
.two{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr))}
figure{margin:0}figcaption{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 1rem;
font-size:.9rem;color:var(--soft);margin-bottom:.3rem}
figcaption b{color:var(--ink)}
.chart{display:block;width:100%;height:6rem;border-bottom:1px solid var(--soft);fill:var(--bar)}
.chart.errors{fill:var(--bad)}.chart .refusals{fill:var(--refused)}
.chart.empty{display:grid;place-content:center;color:var(--soft)}
.chart path{stroke:var(--line);stroke-dasharray:2;vector-effect:non-scaling-stroke}
.axis{display:flex;position:relative;font-size:.85rem;color:var(--soft)}.axis span{width:25%}
.axis span:last-child{position:absolute;right:0;width:auto}
.reasons{list-style:none;margin:0;padding:0}
.reasons li{padding:.6rem 0;border-top:1px solid var(--line)}
.reasons li:first-child{border:0;padding-top:0}
.reasons span{color:var(--soft);font-size:.9rem;margin-right:.6rem;display:inline-block}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.95rem}
th,td{text-align:left;padding:.35rem .75rem .35rem 0;border-bottom:1px solid var(--line);
vertical-align:top}th:last-child,td:last-child{padding-right:0}
th{color:var(--soft);font-weight:600;font-size:.875rem;overflow-wrap:normal}
tr:last-child>*{border-bottom:0}
td.number,th.number{text-align:right;font-variant-numeric:tabular-nums}
summary{cursor:pointer;font-weight:700;padding:.3rem 0}
details table{margin-top:.5rem}details th{width:40%}
footer{margin-top:1rem;color:var(--soft);font-size:.9rem}
:focus-visible{outline:3px solid var(--bar);outline-offset:2px}
@media(min-width:22rem){.care code:not(.name),.reasons p code:not(.name){white-space:nowrap}}
@media(max-width:40rem){body{padding:.5rem .6rem 1.5rem}header{column-gap:.5rem}
nav a{padding:.25rem .4rem;min-width:2.25rem}.care{padding:.8rem;gap:.8rem}
.care svg{width:3.25rem;height:3.25rem}.care strong{font-size:clamp(1.2rem,7vw,1.6rem)}
.glance{grid-template-columns:1fr 1fr;gap:.5rem}.glance .card{padding:.6rem .7rem}
.glance .card b{font-size:1rem}
table{font-size:.85rem}th{font-size:.8rem}th,td{padding-right:.4rem}
.glance .card:last-child:nth-child(odd){grid-column:1/-1}main{gap:.75rem}.chart{height:4.5rem}
.axis span:nth-child(even){visibility:hidden}
.tokens thead,.slowest thead{position:absolute;width:1px;height:1px;overflow:hidden;
clip-path:inset(50%)}.tokens tr,.slowest tr{display:block;padding:.4rem 0;
border-bottom:1px solid var(--line)}.tokens tr:last-child,.slowest tr:last-child{border:0}
.tokens td,.slowest td{display:flex;gap:.75rem;justify-content:space-between;text-align:right;
border:0;padding:.1rem 0}
.tokens td::before,.slowest td::before{content:attr(data-name);color:var(--soft);
text-align:left;white-space:nowrap}.slowest tr{display:grid;grid-template-columns:1fr auto}
.slowest td{justify-content:end}
.slowest td:nth-child(odd){justify-content:start;text-align:left;gap:.4rem}
.slowest td:not(:nth-child(3))::before{content:none}#settings tr{display:block;padding:.3rem 0}
#settings th,#settings td{display:block;width:auto;border:0;padding:.1rem 0}}
@media(max-width:22rem){.card{padding:.7rem}th{font-size:.75rem}}
@media print{body{max-width:none}details{display:none}}
"""

TIMES: Final = """
  const two = (number) => String(number).padStart(2, "0");
  const localise = (part) => {
    for (const each of part.querySelectorAll("time")) {
      const at = new Date(each.dateTime);
      const day = [at.getFullYear(), two(at.getMonth() + 1), two(at.getDate())].join("-");
      const clock = [at.getHours(), at.getMinutes(), at.getSeconds()].map(two);
      each.title = each.dateTime;
      const short = "short" in each.dataset;
      if (short) clock.pop();
      const today = at.toDateString() === new Date().toDateString();
      each.textContent = (today || short ? "" : day + " ") + clock.join(":");
    }
  };
"""
"""Writes times as the reader's clock does; a part of a script."""

SCRIPT: Final = (
    """
"use strict";
(() => {
  const SILENCE = 8000, POLL = 5000, RETRY = 30000;
  const root = document.documentElement;
  const query = "?lang=" + root.lang;
  const units = root.dataset.units.split("|");
  const main = document.querySelector("main");
  const stale = document.getElementById("stale");
  const said = document.getElementById("said");
  const known = new Map();
  let events = null, heard = Date.now(), retryAt = 0, polledAt = 0;

  const spell = (seconds) => {
    const sizes = [86400, 3600, 60, 1];
    const found = sizes.findIndex((size) => seconds >= size);
    const at = found < 0 ? 3 : found;
    const parts = [Math.floor(seconds / sizes[at]) + " " + units[at]];
    if (at < 3) parts.push(Math.floor(seconds % sizes[at] / sizes[at + 1]) + " " + units[at + 1]);
    return parts.join(" ");
  };
"""
    + TIMES
    + """
  const prepare = (part) => {
    localise(part);
    for (const each of part.querySelectorAll("[data-seconds]")) {
      each.until = Date.now() + 1000 * each.dataset.seconds;
    }
  };
  const countDown = () => {
    for (const each of main.querySelectorAll("[data-seconds]")) {
      each.textContent = spell(Math.max(0, Math.round((each.until - Date.now()) / 1000)));
    }
  };
  const exchange = (old, part) => {
    const focused = old.contains(document.activeElement) && document.activeElement.id;
    const details = part.querySelector("details");
    if (details) details.open = old.querySelector("details").open;
    old.replaceWith(part);
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
    if (part.id === "care") said.textContent = part.textContent;
  };
  const show = (source, title, icon) => {
    let at = main.firstElementChild;
    for (const part of [...source.children]) {
      const html = part.outerHTML;
      const same = at && at.id === part.id;
      const next = same ? at.nextElementSibling : at;
      if (!same) main.insertBefore(part, at);
      else if (known.get(part.id) !== html) exchange(at, part);
      if (part.isConnected) prepare(part);
      known.set(part.id, html);
      at = next;
    }
    while (at) { const next = at.nextElementSibling; at.remove(); at = next; }
    document.title = title;
    document.querySelector("link[rel=icon]").href = icon;
    heard = Date.now();
    stale.hidden = true;
    document.body.classList.remove("old");
    countDown();
  };
  const parse = (text) => new DOMParser().parseFromString(text, "text/html");
  const tell = (event) => {
    const news = JSON.parse(event.data);
    show(parse(news.main).body, news.title, news.icon);
  };
  const miss = () => {
    stale.hidden = false;
    document.body.classList.add("old");
    document.title = "? " + document.querySelector("h1").textContent;
  };
  const poll = async () => {
    if (Date.now() - polledAt < POLL) return;
    polledAt = Date.now();
    try {
      const answer = await fetch("status" + query, { cache: "no-store" });
      if (!answer.ok) return miss();
      const page = parse(await answer.text());
      const icon = page.querySelector("link[rel=icon]").getAttribute("href");
      show(page.querySelector("main"), page.title, icon);
    } catch { miss(); }
  };
  const hangUp = () => {
    if (events) events.close();
    events = null;
  };
  const listen = () => {
    if (events && events.readyState !== EventSource.CLOSED || Date.now() < retryAt) return;
    events = new EventSource("status/events" + query);
    events.onmessage = tell;
    events.onerror = () => {
      if (events && events.readyState === EventSource.CLOSED) retryAt = Date.now() + RETRY;
      poll();
    };
  };
  const look = () => {
    countDown();
    if (document.hidden) return hangUp();
    listen();
    if (Date.now() - heard > SILENCE) poll();
  };
  for (const part of main.children) known.set(part.id, part.outerHTML);
  prepare(document.body);
  document.addEventListener("visibilitychange", look);
  setInterval(look, 1000);
  look();
})();
"""
)


def _source(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def headers(style: str, script: str, *, forms: str = "'none'") -> dict[str, str]:
    """Return the header fields of a page that allow only this style and script.

    `forms` is the source list of the directive `form-action`.
    """
    return {
        "Content-Security-Policy": (
            f"default-src 'none'; style-src {_source(style)}; script-src {_source(script)}; "
            f"connect-src 'self'; img-src data:; base-uri 'none'; form-action {forms}; "
            "frame-ancestors 'none'"
        ),
        "Referrer-Policy": "no-referrer",
        "Vary": "Accept-Language",
    }


HEADERS: Final = headers(STYLE, SCRIPT)
