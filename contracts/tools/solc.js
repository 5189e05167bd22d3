#!/usr/bin/env node
// Gives npm's solc-js the two faces of the native compiler that forge asks for: --version and
// --standard-json. Source files are read from this folder and from the paths given.
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const solc = require("solc");

const args = process.argv.slice(2);

function option(name) {
  const values = [];
  args.forEach((arg, i) => {
    if (arg === name && i + 1 < args.length) values.push(args[i + 1]);
    else if (arg.startsWith(`${name}=`)) values.push(arg.slice(name.length + 1));
  });
  return values;
}

function reader(roots) {
  return (name) => {
    for (const root of roots) {
      const file = path.resolve(root, name);
      if (fs.existsSync(file)) return { contents: fs.readFileSync(file, "utf8") };
    }
    return { error: `not found: ${name}` };
  };
}

function main() {
  if (args.includes("--version")) {
    console.log("solc, the solidity compiler commandline interface");
    console.log(`Version: ${solc.version()}`);
    return 0;
  }
  if (!args.includes("--standard-json")) {
    console.error(`solc.js: only --version and --standard-json, not ${args.join(" ")}`);
    return 1;
  }
  const read = reader([...option("--base-path"), ...option("--include-path"), process.cwd()]);
  const input = JSON.parse(fs.readFileSync(0, "utf8"));
  for (const source of Object.values(input.sources)) {
    if (source.content !== undefined) continue;
    const found = (source.urls ?? []).map(read).find((answer) => "contents" in answer);
    if (found) {
      source.content = found.contents;
      delete source.urls;
    }
  }
  fs.writeSync(1, solc.compile(JSON.stringify(input), { import: read }));
  return 0;
}

process.exitCode = main();
