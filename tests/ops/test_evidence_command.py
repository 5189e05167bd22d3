"""Evidence as a file: read from a home or a node, complete in itself, and verified by anybody."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from consensus.codec import encode
from consensus.context import TABLE_EVIDENCE
from consensus.crypto import verify_ed25519
from consensus.effects import Write
from consensus.evidence import Evidence, Statement, contradiction_of, evidence_fault, evidence_key
from consensus.words import gave_up_of
from ops.commands.evidence import command
from ops.config import NodeConfig, save_config
from ops.evidencefile import EvidenceFile, EvidenceFileError, read_evidence, stored_evidence
from ops.genesis import save_genesis
from ops.sim.keys import real_keys
from ops.store import MemoryStore, Store
from tests.consensus.samples import EPOCH, NETWORK, Sample
from tests.ops.test_config import _genesis

SAMPLE = Sample(4)
SAMPLE.keys = real_keys(NETWORK, 4)
FULL = (1, 1, 1, 1)
A, B = b"\xaa" * 32, b"\xbb" * 32
BLOCK = SAMPLE.block(2)
OTHER = msgspec.structs.replace(BLOCK, height=2)
PAIRS: dict[str, tuple[Statement, Statement]] = {
    "proposal": (SAMPLE.proposal(BLOCK), SAMPLE.proposal(OTHER)),
    "vote": (SAMPLE.vote(2, 2, A, FULL), SAMPLE.vote(2, 2, B, FULL)),
    "vote with another claim": (SAMPLE.vote(2, 3, A, FULL), SAMPLE.vote(2, 3, A, (1, 1, 1, 2))),
    "commit_vote": (SAMPLE.commit_vote(2, 2, A), SAMPLE.commit_vote(2, 2, B)),
    "commit_vote_after_timeout": (
        SAMPLE.commit_vote(2, 2, A),
        gave_up_of(SAMPLE.timeout(2, 4, SAMPLE.qc(1, A))),
    ),
    "log_fork": (SAMPLE.batch(2), SAMPLE.batch(2, time_ms=7)),
}


def record(name: str) -> Evidence:
    first, second = PAIRS[name]
    found = contradiction_of(first, second, 4)
    assert found is not None, name
    kind, offender, position = found
    assert kind == name.split(" ")[0]
    assert offender == 2
    return Evidence(kind, offender, EPOCH, position, encode(first), encode(second))


def evidence_file() -> EvidenceFile:
    store = MemoryStore()
    for name in PAIRS:
        each = record(name)
        store.apply([Write(TABLE_EVIDENCE, evidence_key(each), encode(each))], sync=True)
    return stored_evidence(store, NETWORK, SAMPLE.keys.publics)


def invoke(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(command, args)
    return result.exit_code, result.output


def test_every_kind_verifies_offline(tmp_path: Path) -> None:
    file = tmp_path / "evidence.json"
    file.write_bytes(evidence_file().to_json())
    code, said = invoke("verify", str(file))
    assert code == 0, said
    assert said.count("proved  replica 2") == len(PAIRS)
    assert f"{len(PAIRS)} of {len(PAIRS)} records proved" in said
    assert SAMPLE.keys.publics[2].hex() in said
    code, said = invoke(str(file))
    assert code == 0
    assert said.count("replica 2") == len(PAIRS)
    copy = tmp_path / "copy.json"
    assert invoke(str(file), "--export", str(copy))[0] == 0
    assert copy.read_bytes() == file.read_bytes()


def test_what_an_honest_replica_may_sign_is_no_contradiction() -> None:
    commit = SAMPLE.commit_vote(2, 2, A)
    harmless: list[tuple[Statement, Statement]] = [
        (commit, gave_up_of(SAMPLE.timeout(2, 4, SAMPLE.qc(2, A)))),
        (commit, gave_up_of(SAMPLE.timeout(2, 4, SAMPLE.qc(3, A)))),
        (commit, gave_up_of(SAMPLE.timeout(2, 1))),
        (commit, gave_up_of(SAMPLE.timeout(1, 4))),
        (commit, SAMPLE.commit_vote(2, 3, B)),
        (commit, SAMPLE.commit_vote(1, 2, B)),
        (commit, SAMPLE.vote(2, 2, B, FULL)),
        (SAMPLE.vote(2, 2, A, FULL), SAMPLE.vote(2, 3, B, FULL)),
        (SAMPLE.vote(2, 2, A, FULL), SAMPLE.vote(1, 2, B, FULL)),
        (SAMPLE.proposal(BLOCK), SAMPLE.proposal(SAMPLE.block(6))),
        (SAMPLE.batch(2), SAMPLE.batch(1)),
        *((pair[0], pair[0]) for pair in PAIRS.values()),
    ]
    for first, second in harmless:
        assert contradiction_of(first, second, 4) is None, (first, second)


@pytest.mark.parametrize("name", PAIRS)
def test_a_record_with_anything_changed_proves_nothing(name: str) -> None:
    good = record(name)
    keys = SAMPLE.keys.publics
    assert evidence_fault(good, NETWORK, keys, verify_ed25519) is None
    first, second = PAIRS[name]
    tampered = [msgspec.structs.replace(first, signature=bytes(64))]
    tampered.append(msgspec.structs.replace(first, signature=second.signature))
    bad = [msgspec.structs.replace(good, first=encode(each)) for each in tampered]
    changes: list[dict[str, object]] = [
        {"offender": 1},
        {"position": good.position + 1},
        {"epoch": 2},
        {"kind": "vote" if good.kind != "vote" else "proposal"},
        {"second": good.first},
        {"first": b""},
        {"first": b"\xc1"},
    ]
    bad += [msgspec.structs.replace(good, **change) for change in changes]
    for each in bad:
        assert evidence_fault(each, NETWORK, keys, verify_ed25519) is not None, each
    assert evidence_fault(good, bytes(32), keys, verify_ed25519) == "a signature is bad"
    assert evidence_fault(good, NETWORK, keys[:2], verify_ed25519) is not None
    others = (keys[1], keys[2], keys[3], keys[0])
    assert evidence_fault(good, NETWORK, others, verify_ed25519) == "a signature is bad"


def test_what_does_not_verify_is_named_and_the_exit_status_says_so(tmp_path: Path) -> None:
    raw = json.loads(evidence_file().to_json())
    raw["records"][1]["second"] = raw["records"][1]["first"]
    raw["records"].append({**raw["records"][0], "epoch": 9})
    file = tmp_path / "forged.json"
    file.write_text(json.dumps(raw))
    code, said = invoke("verify", str(file))
    assert code == 1
    assert said.count("BAD") == 2
    assert "do not contradict each other" in said
    assert "no keys for epoch 9" in said


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"format": "other"}', "\x00", '{"format": "fairlane-evidence-1"}', "1" * 9],
)
def test_what_is_no_evidence_file_is_refused_by_name(text: str, tmp_path: Path) -> None:
    with pytest.raises(EvidenceFileError):
        read_evidence(text.encode())
    file = tmp_path / "x.json"
    file.write_text(text)
    code, said = invoke("verify", str(file))
    assert code == 1
    assert "x.json is no evidence file" in said
    assert invoke(str(tmp_path / "nothing.json"))[0] == 1


def test_a_home_shows_its_evidence_and_its_genesis_vouches_for_the_keys(tmp_path: Path) -> None:
    """Also while a node has the store open. A file with other keys proves nothing about these."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere.json"
    home.mkdir()
    keys = SAMPLE.keys.publics
    members = [
        msgspec.structs.replace(member, consensus_key=keys[i])
        for i, member in enumerate(_genesis(4).members)
    ]
    genesis = _genesis(4, members=tuple(members))
    save_genesis(home / "genesis.json", genesis)
    save_config(
        home,
        NodeConfig(
            index=0,
            p2p_listen="127.0.0.1:1",
            gateway_listen="127.0.0.1:2",
            rpc_url="http://127.0.0.1:3",
        ),
    )
    store = Store.open(home / "data")
    each = record("vote")
    store.apply([Write(TABLE_EVIDENCE, evidence_key(each), encode(each))], sync=False)
    out = tmp_path / "out.json"
    code, said = invoke("--home", str(home), "--export", str(out))
    assert (code, "two votes in one round" in said) == (0, True), said
    store.close()
    # Signed for the tests' network and not for this genesis': it must not verify as its.
    code, said = invoke("verify", str(out), "--genesis", str(home / "genesis.json"))
    assert (code, "a signature is bad" in said) == (1, True), said
    elsewhere.write_bytes(evidence_file().to_json())
    code, said = invoke("verify", str(elsewhere), "--genesis", str(home / "genesis.json"))
    assert (code, "of another network" in said) == (1, True), said


def test_one_source_is_needed_and_no_more(tmp_path: Path) -> None:
    assert invoke()[0] == 2
    assert invoke("--home", str(tmp_path), "--url", "http://127.0.0.1:1")[0] == 2
    code, said = invoke("--url", "ftp://example")
    assert (code, "no http URL" in said) == (1, True)


def test_what_a_door_shows_is_bounded_and_says_how_much_is_missing() -> None:
    store = MemoryStore()
    for name in PAIRS:
        each = record(name)
        store.apply([Write(TABLE_EVIDENCE, evidence_key(each), encode(each))], sync=True)
    shown = stored_evidence(store, NETWORK, SAMPLE.keys.publics, bytes_max=1_200)
    assert 0 < len(shown.records) < len(PAIRS)
    assert shown.left_out == len(PAIRS) - len(shown.records)
    assert read_evidence(shown.to_json()) == shown
