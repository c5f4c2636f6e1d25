// http.request of Node: keeps connections since Node 19; before, give it an agent with keepAlive.
import { serve } from "./serve.mjs";

// <sample>
import http from "node:http";

function call(method, url, body, etag) {
  const headers = { Accept: "application/fhir+json", "Content-Type": "application/fhir+json" };
  if (etag) headers["If-Match"] = etag;
  if (body) headers["Content-Length"] = Buffer.byteLength(body);
  let place = new URL(url);
  const options = { method, headers };
  if (process.env.http_proxy) {
    headers.Host = place.host;
    options.path = url;
    place = new URL(process.env.http_proxy);
  }
  return new Promise((resolve, reject) => {
    const request = http.request(place, options, async (answer) => {
      const text = Buffer.concat(await answer.toArray());
      resolve([answer.statusCode, new Map(Object.entries(answer.headers)), text]);
    });
    request.on("error", reject);
    request.end(body);
  });
}

function search(name) {
  return call("GET", `${process.env.BASE}/Patient?name=${encodeURIComponent(name)}`);
}
// </sample>
await serve(call, search);
