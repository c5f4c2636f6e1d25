// Walks through a platform with one of the JavaScript clients: creates Patients, pages through a
// search for them, follows the last one's Location, and updates it with its version.
//
// Argument: JSON {client, baseUrl, family, count, etag}. With `etag` the platform is a silent one: it
// answers writes with nothing, creates with a relative Location, and gives no versions.
// Prints JSON: {created, pages, followed, updated}, or {error: {step, message}}.
import fhirclient from 'fhirclient';
import { Client as FhirKitClient } from 'fhir-kit-client';
import { MedplumClient } from '@medplum/core';

const { client, baseUrl, family, count, etag } = JSON.parse(process.argv[2]);
const resourceType = 'Patient';
const silent = etag !== null;
const mediaType = 'application/fhir+json';

function fhirKit() {
  const kit = new FhirKitClient({ baseUrl });
  return {
    async create(body) {
      const resource = await kit.create({ resourceType, body });
      return FhirKitClient.httpFor(resource).response.headers.get('location');
    },
    async pages() {
      const found = [];
      let bundle = await kit.search({ resourceType, searchParams: { family, _count: 1 } });
      for (; bundle; bundle = await kit.nextPage({ bundle })) {
        found.push((bundle.entry ?? []).map((entry) => entry.resource.id));
      }
      return found;
    },
    follow: (location) => kit.request(location),
    update: (body, version) =>
      kit.update({ resourceType, id: body.id, body, options: { headers: { 'If-Match': version } } }),
  };
}

function medplum() {
  let location = null;
  const recording = async (...request) => {
    const response = await fetch(...request);
    location = response.headers.get('location') ?? location;
    return response;
  };
  const { origin, pathname } = new URL(baseUrl);
  const medplum = new MedplumClient({ baseUrl: origin, fhirUrlPath: pathname.slice(1), fetch: recording });
  return {
    async create(body) {
      await medplum.createResource(body);
      return location;
    },
    async pages() {
      const found = [];
      for await (const page of medplum.searchResourcePages(resourceType, { family, _count: 1 })) {
        found.push(page.map((patient) => patient.id));
      }
      return found;
    },
    follow: (location) => medplum.get(location, { cache: 'reload' }),
    update(body, version) {
      const options = { headers: { 'If-Match': version } };
      if (silent) { // its updateResource needs an answer
        return medplum.put(medplum.fhirUrl(resourceType, body.id), body, mediaType, options);
      }
      return medplum.updateResource(body, options);
    },
  };
}

function smart() {
  const smart = new fhirclient.FhirClient(baseUrl);
  return {
    async create(body) {
      if (silent) { // it would follow the Location itself, as if that could not be relative
        const headers = { 'Content-Type': mediaType };
        const response = await fetch(`${baseUrl}/Patient`, { method: 'POST', headers, body: JSON.stringify(body) });
        return response.headers.get('location');
      }
      const { response } = await smart.create(body, { includeResponse: true });
      return response.headers.get('location');
    },
    async pages() {
      const found = [];
      for await (const page of smart.pages(`Patient?family=${family}&_count=1`)) {
        found.push((page.entry ?? []).map((entry) => entry.resource.id));
      }
      return found;
    },
    follow: (location) => smart.fhirRequest(location),
    update: (body, version) => smart.update(body, { headers: { 'If-Match': version } }),
  };
}

const driver = { 'fhir-kit-client': fhirKit, '@medplum/core': medplum, 'fhirclient.js': smart }[client]();
let step = 'create';

// A Location may be relative to what was asked (RFC 9110 section 10.2.2).
const absolute = (location) => new URL(location, `${baseUrl}/Patient`).href;

async function walk() {
  const created = [];
  for (let index = 0; index < count; index += 1) {
    created.push(absolute(await driver.create({ resourceType, name: [{ family }] })));
  }
  step = 'search';
  const pages = await driver.pages();
  step = 'follow';
  const followed = await driver.follow(created.at(-1));
  step = 'update';
  await driver.update({ ...followed, gender: 'female' }, etag ?? `W/"${followed.meta.versionId}"`);
  const updated = await driver.follow(`${baseUrl}/Patient/${followed.id}`);
  return { created, pages, followed: followed.id, updated };
}

let outcome;
try {
  outcome = await walk();
} catch (error) {
  outcome = { error: { step, message: String(error.message) } };
}
console.log(JSON.stringify(outcome));
