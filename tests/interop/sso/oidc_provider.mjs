// Runs oidc-provider (OpenID-certified) as the platform's SSO and as one at which users sign in.
//
// Argument: a file of JSON {port, issuer, clients, keys, lifetime, audience}; SIGHUP reads it again,
// without losing what is stored. `clients` are in the provider's own terms, `keys` private JWKs of
// which the first signs, `lifetime` is that of access tokens in seconds. The pages to sign in take any
// name and password. Prints a line each time it is ready. Ends with SIGTERM.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import Provider from 'oidc-provider';
import { createMemoryAdapter } from 'oidc-provider/lib/adapters/memory_adapter.js';

const settings = () => JSON.parse(readFileSync(process.argv[2], 'utf8'));
const adapter = createMemoryAdapter();

const provider = ({ issuer, clients, keys, lifetime, audience }) => {
  const made = new Provider(issuer, {
    adapter,
    clients,
    scopes: ['openid', 'offline_access', 'system/*.rs'],
    jwks: { keys },
    cookies: { keys: ['a key that signs nothing of value'] },
    clientAuthMethods: ['none', 'client_secret_post', 'client_secret_basic', 'private_key_jwt'],
    enabledJWA: { clientAuthSigningAlgValues: ['RS384', 'ES384'] },
    issueRefreshToken: async () => true,
    rotateRefreshToken: true,
    // Its own one talks to no address that is private, and here all are.
    fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
    features: {
      backchannelLogout: { enabled: true },
      clientCredentials: { enabled: true },
      devInteractions: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => audience,
        useGrantedResource: () => true,
        getResourceServerInfo: () => ({
          scope: '',
          audience,
          accessTokenFormat: 'jwt',
          accessTokenTTL: lifetime,
          jwt: { sign: { alg: 'RS256' } },
        }),
      },
    },
  });
  made.proxy = true;
  return made.callback();
};

let answer = provider(settings());
const server = createServer((request, response) => answer(request, response));
server.listen(settings().port, '127.0.0.1', () => console.log('ready'));
process.on('SIGHUP', () => {
  answer = provider(settings());
  console.log('ready');
});
process.on('SIGTERM', () => process.exit(0));
