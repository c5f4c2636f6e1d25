// A person at a headless Chromium, told what to do by lines of JSON on a connection.
//
// Each line is {do, ...}; each answer is one line of JSON, {ok} or {error}. The end of the connection
// is the person's. All that the pages sent, got and kept is remembered for `seen`.
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const axe = await readFile(createRequire(import.meta.url).resolve('axe-core'), 'utf8');

export const walk = async (browser, connection) => {
  const context = await browser.newContext();
  // The machine may be busy; the caller's own limit lies above.
  context.setDefaultTimeout(100000);
  const pages = [];
  const traffic = [];
  const complaints = [];

  const watch = (page) => {
    page.on('response', async (response) => {
      const entry = {
        url: response.url(),
        status: response.status(),
        sent: JSON.stringify(await response.request().allHeaders().catch(() => ({}))),
        headers: JSON.stringify(await response.allHeaders().catch(() => ({}))),
        body: await response.text().catch(() => ''),
      };
      traffic.push(entry);
    });
    page.on('console', (message) => {
      traffic.push({ url: page.url(), body: message.text() });
      if (message.type() === 'error') complaints.push(message.text());
    });
    page.on('pageerror', (error) => complaints.push(String(error)));
  };

  const page = (number) => pages[number ?? 0];

  const commands = {
    open: async ({ tab, url }) => {
      pages[tab ?? 0] ??= await context.newPage().then((made) => (watch(made), made));
      const response = await page(tab).goto(url);
      return { url: page(tab).url(), status: response?.status() ?? 0 };
    },
    // What is typed where a server asks for name and password (HTTP Basic).
    sign: async ({ username, password }) => {
      await context.setHTTPCredentials({ username, password });
      return {};
    },
    // The languages that the browser asks for.
    speak: async ({ language }) => {
      await context.setExtraHTTPHeaders({ 'Accept-Language': language });
      return {};
    },
    press: async ({ tab, key }) => {
      await page(tab).keyboard.press(key);
      return {};
    },
    click: async ({ tab, selector }) => {
      await page(tab).click(selector);
      return {};
    },
    fill: async ({ tab, selector, value }) => {
      await page(tab).fill(selector, value);
      return {};
    },
    wait: async ({ tab, selector, text }) => {
      const found = page(tab).locator(selector, text === undefined ? {} : { hasText: text });
      await found.first().waitFor({ state: 'visible' });
      return { url: page(tab).url(), text: await page(tab).locator('body').innerText() };
    },
    arrive: async ({ tab, url }) => {
      await page(tab).waitForURL((at) => at.href.startsWith(url));
      return { url: page(tab).url(), text: await page(tab).locator('body').innerText() };
    },
    back: async ({ tab }) => {
      await page(tab).goBack();
      return { url: page(tab).url() };
    },
    run: async ({ tab, script }) => ({ value: await page(tab).evaluate(script) }),
    // A proxy in between that answers nothing of what fits the pattern.
    hold: async ({ tab, pattern }) => {
      await page(tab).route(pattern, () => {});
      return {};
    },
    // How the reader looks at the page: the window in CSS pixels, and light or dark.
    look: async ({ tab, width, height, scheme }) => {
      await page(tab).setViewportSize({ width, height });
      await page(tab).emulateMedia({ colorScheme: scheme ?? 'light' });
      return {};
    },
    shoot: async ({ tab, path }) => {
      await page(tab).screenshot({ path });
      return {};
    },
    // What assistive technology would stumble over, by axe-core, which runs beside the page's policy.
    axe: async ({ tab }) => {
      await page(tab).evaluate(axe);
      const { violations } = await page(tab).evaluate(() => globalThis.axe.run(document));
      return {
        violations: violations.map(({ id, impact, nodes }) => ({
          id,
          impact,
          nodes: nodes.map((node) => `${node.html} ${node.failureSummary}`),
        })),
      };
    },
    complaints: async () => ({ complaints }),
    cookies: async () => ({ cookies: await context.cookies() }),
    seen: async () => {
      const kept = [];
      for (const each of pages) {
        kept.push(await each.content());
        kept.push(
          await each.evaluate(
            () => JSON.stringify({ ...localStorage, ...sessionStorage }) + document.cookie,
          ),
        );
      }
      return { traffic, kept };
    },
  };

  for await (const line of createInterface({ input: connection })) {
    const told = JSON.parse(line);
    let answer;
    try {
      answer = await commands[told.do](told);
    } catch (error) {
      answer = { error: String(error) };
    }
    connection.write(`${JSON.stringify(answer)}\n`);
  }
  await context.close();
};
