// Runs @node-oauth/oauth2-server as an SSO for clients without users, which get opaque tokens.
//
// Argument: a file of JSON {port, memory, clients, lifetime, changes}; SIGHUP reads it again. `memory`
// is the file that keeps the tokens from its end to its next start, `clients` has secrets by client id,
// `lifetime` is that of access tokens in seconds. `changes`, by client id, replaces members of token
// responses, and leaves out those that are null: what such a response holds is up to the application.
// Prints a line each time it is ready.
import OAuth2Server from '@node-oauth/oauth2-server';
import { readFileSync, existsSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';

const settings = () => JSON.parse(readFileSync(process.argv[2], 'utf8'));
let told = settings();
// When each token ends, in milliseconds.
const tokens = new Map(existsSync(told.memory) ? JSON.parse(readFileSync(told.memory, 'utf8')) : []);

const model = {
  getClient: async (id, secret) =>
    told.clients[id] === secret && { id, grants: ['client_credentials'], accessTokenLifetime: told.lifetime },
  getUserFromClient: async ({ id }) => ({ id }),
  validateScope: async (user, client, scope = ['fhir']) => scope.every((each) => each === 'fhir') && scope,
  saveToken: async (token, client, user) => {
    tokens.set(token.accessToken, token.accessTokenExpiresAt.getTime());
    return { ...token, client, user };
  },
};
const oauth = new OAuth2Server({ model });

const changed = (body, client) =>
  Object.fromEntries(Object.entries({ ...body, ...told.changes[client] }).filter(([, value]) => value !== null));

const answer = async (request) => {
  const form = Object.fromEntries(new URLSearchParams(await text(request)));
  if (request.url === '/introspect') {
    return { status: 200, body: { active: tokens.get(form.token) > Date.now() } };
  }
  const response = new OAuth2Server.Response();
  const { method, headers } = request;
  try {
    const { client } = await oauth.token(new OAuth2Server.Request({ method, headers, query: {}, body: form }), response);
    return { ...response, body: changed(response.body, client.id) };
  } catch {
    // Its body has the error.
    return response;
  }
};

const server = createServer(async (request, response) => {
  const { status, headers, body } = await answer(request);
  response.writeHead(status, { ...headers, 'Content-Type': 'application/json' }).end(JSON.stringify(body));
});
server.listen(told.port, '127.0.0.1', () => console.log('ready'));
process.on('SIGHUP', () => {
  told = settings();
  console.log('ready');
});
process.on('SIGTERM', () => {
  writeFileSync(told.memory, JSON.stringify([...tokens]));
  process.exit(0);
});
