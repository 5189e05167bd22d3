#!/usr/bin/env node
// Compiles the contracts in src/ and writes one artifact for each of those that are deployed, or,
// with --check, compares with the artifacts that are there. The same sources give the same bytes.
"use strict";
const crypto = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const solc = require("solc");

const ROOT = path.resolve(__dirname, "..");
const ARTIFACTS = path.join(ROOT, "artifacts");
const DEPLOYED = {
  Vault: "src/Vault.sol",
  Inbox: "src/Inbox.sol",
  Checkpoints: "src/Checkpoints.sol",
  TestToken: "src/test/TestToken.sol",
};
// The same as in foundry.toml, so that forge tests what is shipped.
const SETTINGS = {
  evmVersion: "prague",
  viaIR: true,
  optimizer: { enabled: true, runs: 10000 },
  metadata: { appendCBOR: false, bytecodeHash: "none" },
  remappings: ["@openzeppelin/=node_modules/@openzeppelin/"],
  outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"] } },
};

function compile() {
  const read = (name) => {
    const file = path.join(ROOT, name);
    return fs.existsSync(file)
      ? { contents: fs.readFileSync(file, "utf8") }
      : { error: `not found: ${name}` };
  };
  const sources = {};
  for (const file of Object.values(DEPLOYED)) sources[file] = { content: read(file).contents };
  const input = { language: "Solidity", sources, settings: SETTINGS };
  const output = JSON.parse(solc.compile(JSON.stringify(input), { import: read }));
  const complaints = (output.errors ?? []).filter(
    (e) => e.severity === "error" || !e.sourceLocation?.file.startsWith("node_modules/"),
  );
  for (const complaint of complaints) console.error(complaint.formattedMessage);
  if (complaints.length > 0) throw new Error("the compiler complains; warnings of ours count too");
  return output.contracts;
}

function artifacts() {
  const contracts = compile();
  const settingsHash = crypto.createHash("sha256").update(JSON.stringify(SETTINGS)).digest("hex");
  const files = {};
  for (const [name, file] of Object.entries(DEPLOYED)) {
    const { abi, evm } = contracts[file][name];
    const artifact = {
      name,
      compiler: solc.version(),
      settings_sha256: settingsHash,
      bytecode: evm.bytecode.object,
      deployed_bytecode: evm.deployedBytecode.object,
      abi,
    };
    files[`${name}.json`] = `${JSON.stringify(artifact, null, 1)}\n`;
  }
  return files;
}

function check(files) {
  const stale = Object.entries(files).filter(([name, text]) => {
    const file = path.join(ARTIFACTS, name);
    return !fs.existsSync(file) || fs.readFileSync(file, "utf8") !== text;
  });
  const extra = fs.readdirSync(ARTIFACTS).filter((name) => !(name in files));
  for (const [name] of stale) console.error(`artifacts/${name} is not what the sources compile to`);
  for (const name of extra) console.error(`artifacts/${name} has no source`);
  if (stale.length + extra.length > 0) throw new Error("run contracts/build.sh build");
  console.log(`${Object.keys(files).length} artifacts are what the sources compile to`);
}

function write(files) {
  fs.mkdirSync(ARTIFACTS, { recursive: true });
  for (const [name, text] of Object.entries(files)) {
    fs.writeFileSync(path.join(ARTIFACTS, name), text);
    const { bytecode, deployed_bytecode: deployed } = JSON.parse(text);
    console.log(`${name}: ${bytecode.length / 2} bytes, ${deployed.length / 2} on chain`);
  }
}

try {
  (process.argv.includes("--check") ? check : write)(artifacts());
} catch (error) {
  console.error(`compile.js: ${error.message}`);
  process.exitCode = 1;
}
