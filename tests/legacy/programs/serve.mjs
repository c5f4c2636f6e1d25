// What the programs for Node share.
import { readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";

export async function serve(call, search) {
  for await (const line of createInterface({ input: process.stdin })) {
    const [method, url, file, etag] = line.split("\t").map((each) => (each === "-" ? undefined : each));
    const body = file && readFileSync(file);
    const [status, headers, text] = await (method === "SEARCH" ? search(url) : call(method, url, body, etag));
    writeFileSync(process.env.OUT, text);
    console.log([status, headers.get("etag") ?? "", headers.get("location") ?? ""].join("\t"));
  }
}
