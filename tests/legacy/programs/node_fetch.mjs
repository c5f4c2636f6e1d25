// fetch of Node: keeps connections.
import { serve } from "./serve.mjs";

// <sample>
async function call(method, url, body, etag) {
  const headers = { Accept: "application/fhir+json" };
  if (body) headers["Content-Type"] = "application/fhir+json";
  if (etag) headers["If-Match"] = etag;
  const answer = await fetch(url, { method, headers, body });
  return [answer.status, answer.headers, Buffer.from(await answer.arrayBuffer())];
}

function search(name) {
  return call("GET", `${process.env.BASE}/Patient?name=${encodeURIComponent(name)}`);
}
// </sample>
await serve(call, search);
