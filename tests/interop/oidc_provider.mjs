// Runs oidc-provider (OpenID-certified) as the platform's SSO on a free loopback port.
//
// Argument: JSON {clients: [{id, authMethod, secret or jwks, redirectUri}], audience, lifetime}, the
// lifetime in seconds. A client with `redirectUri` lets users sign in, on pages of the provider,
// by any name.
// Prints one line of JSON, {issuer, tokenUrl, jwksUrl}, as soon as it answers. Ends with SIGTERM.
//
// Like the national SSO it takes no `scope` and no `resource`: every client gets a JWT for the one
// audience that there is.
import { createServer } from 'node:http';
import { generateKeyPairSync } from 'node:crypto';
import Provider from 'oidc-provider';

const settings = JSON.parse(process.argv[2]);
const TOKEN_PATH = '/oauth/token';

const signingKey = () => ({
  ...generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' }),
  kid: 'interop',
  alg: 'RS256',
  use: 'sig',
});

const client = ({ id, secret, jwks, authMethod, redirectUri }) => ({
  client_id: id,
  ...(jwks ? { jwks } : { client_secret: secret }),
  token_endpoint_auth_method: authMethod,
  scope: redirectUri ? 'openid offline_access' : 'openid',
  grant_types: redirectUri ? ['authorization_code', 'refresh_token'] : ['client_credentials'],
  redirect_uris: redirectUri ? [redirectUri] : [],
  response_types: redirectUri ? ['code'] : [],
});

const configuration = {
  clients: settings.clients.map(client),
  // What there is but a client may not have is `invalid_scope`.
  scopes: ['openid', 'offline_access', 'system/*.rs'],
  jwks: { keys: [signingKey()] },
  routes: { token: TOKEN_PATH },
  clientAuthMethods: ['client_secret_post', 'client_secret_basic', 'private_key_jwt'],
  enabledJWA: { clientAuthSigningAlgValues: ['RS384', 'ES384'] },
  features: {
    devInteractions: { enabled: settings.clients.some((each) => each.redirectUri) },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => settings.audience,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: '',
        audience: settings.audience,
        accessTokenFormat: 'jwt',
        accessTokenTTL: settings.lifetime,
        jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
};

const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  server.on('request', new Provider(issuer, configuration).callback());
  console.log(
    JSON.stringify({ issuer, tokenUrl: issuer + TOKEN_PATH, jwksUrl: `${issuer}/jwks` }),
  );
});
process.on('SIGTERM', () => process.exit(0));
