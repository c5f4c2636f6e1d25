// Drives fhir-kit-client: one call, or a search with all its pages.
//
// Argument: JSON {baseUrl, call, parameters}; `call` is a method of the client, or `pages`.
// Prints JSON: {result, status, headers}, or {error: {message, status, body}}.
import { Client } from 'fhir-kit-client';

const { baseUrl, call, parameters } = JSON.parse(process.argv[2]);
const client = new Client({ baseUrl });

async function pages() {
  const bundles = [];
  for (let bundle = await client.search(parameters); bundle; bundle = await client.nextPage({ bundle })) {
    bundles.push(bundle);
  }
  return { result: bundles };
}

async function one() {
  const result = await client[call](parameters);
  const { response } = Client.httpFor(result);
  return { result, status: response.status, headers: Object.fromEntries(response.headers) };
}

let outcome;
try {
  outcome = call === 'pages' ? await pages() : await one();
} catch (error) {
  outcome = { error: { message: error.message, status: error.response?.status, body: error.response?.data } };
}
console.log(JSON.stringify(outcome));
