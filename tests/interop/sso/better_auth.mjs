// Runs Better Auth with its OAuth provider as an SSO, whose tables are in memory.
//
// Argument: a file of JSON {port, url, memory, clients, keysUntil, lifetime, user, email, password};
// SIGHUP reads it again. `clients` are rows of its table of clients, with `secret` in clear; keys made before
// `keysUntil` (milliseconds) sign no more; `lifetime` is that of access tokens in seconds. `memory` is
// the file that keeps the tables from its end to its next start. Prints a line each time it is ready.
//
// Beside it stand what it leaves to an application: a page to sign in, one to sign out, and an answer
// to whoever asks whether a token is active, which it gives to the token's own client alone.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';
import { deserialize, serialize } from 'node:v8';
import { oauthProvider } from '@better-auth/oauth-provider';
import { betterAuth } from 'better-auth';
import { memoryAdapter } from 'better-auth/adapters/memory';
import { toNodeHandler } from 'better-auth/node';
import { jwt } from 'better-auth/plugins';

const settings = () => JSON.parse(readFileSync(process.argv[2], 'utf8'));
const told = settings();
const TABLES = ['user', 'session', 'account', 'verification', 'jwks'];
const OAUTH_TABLES = ['Client', 'RefreshToken', 'AccessToken', 'Consent', 'Resource', 'ClientResource', 'ClientAssertion'];

const empty = () =>
  Object.fromEntries([...TABLES, ...OAUTH_TABLES.map((each) => `oauth${each}`)].map((name) => [name, []]));
const tables = existsSync(told.memory) ? deserialize(readFileSync(told.memory)) : empty();
const hash = (value) => createHash('sha256').update(value).digest('base64url');

const auth = betterAuth({
  baseURL: told.url,
  secret: 'x'.repeat(40),
  database: memoryAdapter(tables),
  emailAndPassword: { enabled: true },
  rateLimit: { enabled: false },
  telemetry: { enabled: false },
  // The plugin's own address for tokens of sessions, which the provider does not want.
  disabledPaths: ['/token'],
  plugins: [
    jwt(),
    oauthProvider({
      loginPage: '/login',
      consentPage: '/consent',
      accessTokenExpiresIn: told.lifetime,
      m2mAccessTokenExpiresIn: told.lifetime,
      scopes: ['openid', 'profile', 'email', 'offline_access', 'fhir'],
      customIdTokenClaims: ({ user }) => ({ preferred_username: user.name }),
      silenceWarnings: { oauthAuthServerConfig: true, openidConfig: true },
    }),
  ],
});

const register = () => {
  const { clients, keysUntil } = settings();
  tables.oauthClient.splice(0, Infinity, ...clients.map(({ secret, ...client }, index) => ({
    ...client,
    id: String(index),
    clientSecret: secret && hash(secret),
  })));
  for (const key of tables.jwks) {
    if (key.createdAt.getTime() < keysUntil) key.expiresAt = new Date(keysUntil);
  }
  console.log('ready');
};

const page = (body, script) =>
  `<!doctype html><title>Better Auth</title>${body}<script>
const post = (path, body) => fetch('/api/auth' + path, {
  method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body),
}).then((answer) => answer.json());
document.querySelector('button').onclick = async () => { ${script} };
</script>`;

const PAGES = {
  '/login': page(
    '<input id="email"><input id="password" type="password"><button>Sign in</button>',
    `const answer = await post('/sign-in/email', {
      email: email.value, password: password.value, oauth_query: location.search.slice(1),
    });
    location.href = answer.url;`,
  ),
  '/account': page(
    '<button>Sign out</button><p></p>',
    `await post('/sign-out', {}); document.querySelector('p').textContent = 'Signed out';`,
  ),
};

const isActive = (token) =>
  tables.oauthAccessToken.some((each) => each.token === hash(token) && !each.revoked && each.expiresAt > new Date());

const handle = toNodeHandler(auth);
const server = createServer(async (request, response) => {
  const path = request.url.split('?')[0];
  if (PAGES[path]) {
    response.setHeader('Content-Type', 'text/html').end(PAGES[path]);
  } else if (path === '/introspect') {
    const form = new URLSearchParams(await text(request));
    response.setHeader('Content-Type', 'application/json').end(JSON.stringify({ active: isActive(form.get('token')) }));
  } else {
    await handle(request, response);
  }
});

if (!tables.user.length) {
  await auth.api.signUpEmail({ body: { email: told.email, password: told.password, name: told.user } });
}
process.on('SIGHUP', register);
process.on('SIGTERM', () => {
  writeFileSync(told.memory, serialize(tables));
  process.exit(0);
});
server.listen(told.port, '127.0.0.1', register);
