"use strict";
(() => {
  const SILENCE = 8000, POLL = 5000, RETRY = 30000;
  const root = document.documentElement;
  const asked = new URLSearchParams(location.search);
  asked.set("lang", root.lang);
  const query = "?" + asked;
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

  // times.js

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
