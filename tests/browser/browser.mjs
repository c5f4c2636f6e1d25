// A headless Chromium for all tests: each connection to it is a person with a context of their own.
// The browser's path is the argument; the first line of output is the port, the end of input is its end.
import { createServer } from 'node:net';
import { chromium } from 'playwright-core';
import { walk } from './walk.mjs';

const browser = await chromium.launch({
  executablePath: process.argv[2],
  args: ['--no-sandbox', '--disable-gpu'],
});
const server = createServer((connection) => walk(browser, connection).finally(() => connection.end()));
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.on('end', () => browser.close().finally(() => process.exit())).resume();
