// A headless Chromium for all tests, each of which has a context of its own in it. The browser's path
// is the argument; the first line of output is where it listens, the end of input is its end.
import { chromium } from 'playwright-core';

const server = await chromium.launchServer({
  executablePath: process.argv[2],
  args: ['--no-sandbox', '--disable-gpu'],
});
console.log(server.wsEndpoint());
process.stdin.on('end', () => server.close()).resume();
