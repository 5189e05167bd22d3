"""The shipped artifacts are whole and are what the chain runs."""

from __future__ import annotations

import pytest

from contracts.loader import UnknownContract, artifact
from tests.contracts.chain import World

NAMES = ("Vault", "Inbox", "Checkpoints", "TestToken")


@pytest.mark.parametrize("name", NAMES)
def test_artifacts_are_whole(name: str) -> None:
    code = artifact(name)
    assert code.name == name
    assert code.compiler.startswith("0.8.")
    assert bytes.fromhex(code.deployed_bytecode) in bytes.fromhex(code.bytecode)
    assert any(item["type"] == "function" for item in code.abi)


def test_artifacts_share_compiler_and_settings() -> None:
    assert len({(artifact(n).compiler, artifact(n).settings_sha256) for n in NAMES}) == 1


@pytest.mark.parametrize("name", ["", "Nothing", "../package", "vault.json", "Vault/.."])
def test_there_is_nothing_else(name: str) -> None:
    with pytest.raises(UnknownContract):
        artifact(name)


def test_the_chain_runs_the_deployed_bytecode() -> None:
    world = World()
    code = bytes(world.w3.eth.get_code(world.token.address))
    assert code == bytes.fromhex(artifact("TestToken").deployed_bytecode)
    for name, contract in (("Inbox", world.inbox), ("Checkpoints", world.checkpoints)):
        on_chain = bytes(world.w3.eth.get_code(contract.address))
        shipped = bytes.fromhex(artifact(name).deployed_bytecode)
        assert len(on_chain) == len(shipped)
        # Immutable values are zero in the artifact and set on chain; all else is the same.
        assert all(ours in (0, theirs) for ours, theirs in zip(shipped, on_chain, strict=True))
