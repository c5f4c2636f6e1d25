// Prints where PowerShell scripts break the language's grammar, a line each; exit code 1 when they do.
//
//   node tests/deploy/powershell.mjs install.ps1 …
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { setFlagsFromString } from "node:v8";
import { Language, Parser } from "web-tree-sitter";

const grammar = createRequire(import.meta.url).resolve("tree-sitter-powershell/tree-sitter-powershell.wasm");
// To optimise the grammar takes half a minute, to read a script without that half a second.
setFlagsFromString("--liftoff-only");
await Parser.init();
const parser = new Parser();
parser.setLanguage(await Language.load(grammar));

function* broken(node) {
  if (node.isError || node.isMissing) yield node;
  else if (node.hasError) for (const child of node.children) yield* broken(child);
}

for (const file of process.argv.slice(2)) {
  for (const node of broken(parser.parse(readFileSync(file, "utf8")).rootNode)) {
    console.log(`${file}:${node.startPosition.row + 1}: ${node.text.split("\n")[0]}`);
    process.exitCode = 1;
  }
}
