#!/usr/bin/env node
// Breaks the contracts on purpose, one rule after another, and runs forge's tests on each: a mutant
// that they do not see is a hole in them. Works on copies in a temporary folder.
"use strict";
const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");

const ROOT = path.resolve(__dirname, "..");
const CHECKPOINTS = "src/Checkpoints.sol";
const VAULT = "src/Vault.sol";

// [what is broken, file, text, what it becomes]; the text occurs once.
const MUTANTS = [
  ["identity key or signature", "src/BLS12381.sol",
    "if (_isIdentity(key) || _isIdentity(signature)) return false;", ""],
  ["pairing's answer", "src/BLS12381.sol", "eq(mload(0), 1)", "1"],
  ["hash to curve ignores the message", "src/BLS12381.sol", "mstore(add(x, 64), message)",
    "mstore(add(x, 64), 0)"],
  ["group key unchecked", CHECKPOINTS, "!BLS12381.isKey(config.groupKey)", "false"],
  ["signature", CHECKPOINTS,
    "!BLS12381.verify(groupKey(head.epoch), digest_, signature)", "signature.length == 1"],
  ["digest of any chain", CHECKPOINTS,
    "return _hashTypedDataV4(keccak256(abi.encode(CHECKPOINT_TYPEHASH, checkpoint)));",
    "return keccak256(abi.encode(CHECKPOINT_TYPEHASH, checkpoint));"],
  ["epoch", CHECKPOINTS, "checkpoint.epoch != head.epoch", "false"],
  ["growing number", CHECKPOINTS, "checkpoint.number <= head.number",
    "checkpoint.number < head.number"],
  ["number of the time", CHECKPOINTS, "checkpoint.number != expected", "false"],
  ["growing height", CHECKPOINTS, "checkpoint.height <= head.height",
    "checkpoint.height < head.height"],
  ["clock", CHECKPOINTS, "checkpoint.blockTimeMs > limitMs", "false"],
  ["zero withdrawals root", CHECKPOINTS, "|| checkpoint.withdrawalsRoot == 0", ""],
  ["reserved fields", CHECKPOINTS, "|| checkpoint.nextEpochHash != 0", ""],
  ["inbox count going back", CHECKPOINTS, "checkpoint.inboxCount < since", "false"],
  ["inbox hash", CHECKPOINTS, "checkpoint.inboxHash != entry.chained", "false"],
  ["old messages", CHECKPOINTS, "late && ", "false && "],
  ["old messages, off by one", CHECKPOINTS, "checkpoint.inboxCount - since < CONSUMED_MIN",
    "checkpoint.inboxCount - since < CONSUMED_MIN - 1"],
  ["withdrawn total going back", CHECKPOINTS,
    "checkpoint.withdrawnTotal < head.withdrawnTotal", "false"],
  ["net total", CHECKPOINTS, "checkpoint.netTotal != expected", "false"],
  ["finality", CHECKPOINTS, "block.timestamp < finalAt", "false"],
  ["acceptance", CHECKPOINTS, "if (acceptedAt == 0) revert NotAccepted(number);", ""],
  ["only the vault", "src/Inbox.sol", "msg.sender != vault", "false"],
  ["deposit limit", "src/Inbox.sol", "deposited > limit", "deposited > limit + 1"],
  ["chain order", "src/Inbox.sol", "bytes.concat(last.chained, keccak256(message))",
    "bytes.concat(keccak256(message), last.chained)"],
  ["proof depth", "src/Merkle.sol", "proof.length != DEPTH || ", ""],
  ["index bound", "src/Merkle.sol", " || index >> DEPTH != 0", ""],
  ["leaves unlike nodes", "src/Merkle.sol", "mstore8(scratch, 1)", "mstore8(scratch, 0)"],
  ["paid once", VAULT, "_claimed.set(index);", ""],
  ["proof", VAULT, "if (!Merkle.verify(root, leaf, index, proof)) revert BadProof();", ""],
  ["recipient", VAULT, "token.safeTransfer(recipient, amount);",
    "token.safeTransfer(msg.sender, amount);"],
  ["claims below withdrawn", VAULT, "amount > left", "false"],
  ["ceiling of all checkpoints", VAULT, "if (withdrawn > payouts.ceiling) payouts.ceiling",
    "payouts.ceiling"],
  ["exact payouts", VAULT, "token.balanceOf(address(this)) + amount != before", "false"],
  ["credited by balance", VAULT, "enqueueDeposit(wallet, subaccount, received)",
    "enqueueDeposit(wallet, subaccount, amount)"],
  ["minimum", VAULT, "received < minimum", "false"],
  ["re-entered deposit", VAULT, "        nonReentrant\n", ""],
  ["re-entered claim", VAULT, "external nonReentrant {", "external {"],
];

function copyTree(target) {
  for (const name of ["src", "test", "tools", "foundry.toml", "package.json"]) {
    fs.cpSync(path.join(ROOT, name), path.join(target, name), { recursive: true });
  }
  fs.symlinkSync(path.join(ROOT, "node_modules"), path.join(target, "node_modules"));
}

function forgeBinary() {
  const packages = path.join(ROOT, "node_modules/@foundry-rs");
  const name = fs.readdirSync(packages).find((entry) => entry.startsWith("forge-"));
  return path.join(packages, name, "bin", "forge");
}

function forge(target) {
  // Not optimised: it compiles in a tenth of the time.
  const env = {
    ...process.env,
    FOUNDRY_VIA_IR: "false",
    FOUNDRY_OPTIMIZER: "false",
    FOUNDRY_LINT_LINT_ON_BUILD: "false",
    FOUNDRY_FUZZ_RUNS: "32",
    FOUNDRY_INVARIANT_RUNS: "2",
  };
  const run = spawnSync(forgeBinary(), ["test", "--fail-fast"], {
    cwd: target, env, encoding: "utf8",
  });
  return { passed: run.status === 0, output: `${run.stdout}${run.stderr}` };
}

function verdict(target, [what, file, text, becomes]) {
  const place = path.join(target, file);
  const original = fs.readFileSync(place, "utf8");
  if (original.split(text).length !== 2) return `${what}: the text is not there exactly once`;
  fs.writeFileSync(place, original.replace(text, () => becomes));
  const { passed, output } = forge(target);
  fs.writeFileSync(place, original);
  if (passed) return `${what}: survived`;
  const failure = output.match(/\[FAIL[^]*?\b((?:test|invariant)_\w+)\(/);
  if (failure === null) return `${what}: did not run\n${output.slice(-2000)}`;
  console.log(`${what}: seen by ${failure[1]}`);
  return null;
}

const target = fs.mkdtempSync(path.join(os.tmpdir(), "fairlane-mutants-"));
try {
  copyTree(target);
  const { passed, output } = forge(target);
  if (!passed) throw new Error(`the tests fail without a mutation\n${output.slice(-2000)}`);
  const words = process.argv.slice(2);
  const chosen = MUTANTS.filter(
    ([what]) => words.length === 0 || words.some((word) => what.includes(word)),
  );
  const holes = chosen.map((mutant) => verdict(target, mutant)).filter((hole) => hole !== null);
  for (const hole of holes) console.error(hole);
  console.log(`${chosen.length - holes.length} of ${chosen.length} mutants seen`);
  process.exitCode = holes.length === 0 ? 0 : 1;
} catch (error) {
  console.error(`mutants.js: ${error.message}`);
  process.exitCode = 1;
} finally {
  fs.rmSync(target, { recursive: true, force: true });
}
