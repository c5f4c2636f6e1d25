// Runs oidc-provider (OpenID-certified) as an SSO at which people sign in, on a free loopback port.
//
// Argument: JSON {redirectUri, client: {id, secret}, lifetime, web}, the lifetime of access tokens
// in seconds; `web` adds to the metadata of the client that people sign in for. Prints one line of
// JSON, {issuer}, as soon as it answers. Its pages to sign in and to agree take any name and any
// password. Ends with SIGTERM.
import { createServer } from 'node:http';
import { generateKeyPairSync } from 'node:crypto';
import Provider from 'oidc-provider';

const settings = JSON.parse(process.argv[2]);

const signingKey = {
  ...generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' }),
  kid: 'browser',
  alg: 'RS256',
  use: 'sig',
};

const configuration = {
  clients: [
    {
      client_id: 'hospital-web',
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      redirect_uris: [settings.redirectUri],
      ...settings.web,
    },
    {
      client_id: settings.client.id,
      client_secret: settings.client.secret,
      token_endpoint_auth_method: 'client_secret_post',
      grant_types: ['client_credentials'],
      response_types: [],
      redirect_uris: [],
    },
  ],
  cookies: { keys: ['a key that signs nothing of value'] },
  jwks: { keys: [signingKey] },
  ttl: { AccessToken: settings.lifetime, ClientCredentials: 300 },
  issueRefreshToken: async () => true,
  rotateRefreshToken: true,
  features: {
    backchannelLogout: { enabled: true },
    clientCredentials: { enabled: true },
    devInteractions: { enabled: true },
    revocation: { enabled: true },
  },
  enabledJWA: { clientAuthSigningAlgValues: ['RS384', 'ES384'] },
  // Its own one talks to no address that is private, and here all are.
  fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
  clientAuthMethods: ['none', 'client_secret_post', 'client_secret_basic', 'private_key_jwt'],
};

const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  server.on('request', new Provider(issuer, configuration).callback());
  console.log(JSON.stringify({ issuer }));
});
process.on('SIGTERM', () => process.exit(0));
