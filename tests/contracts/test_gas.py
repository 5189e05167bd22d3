"""What the contracts cost stays within its limits and within what is written down.

`FAIRLANE_WRITE_GAS=1` writes the table anew.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.contracts.chain import USDC, World

TABLE = Path("contracts/gas.json")
DRIFT_MAX = 400
"""Gas that a call may differ by from run to run: a signature's zero bytes cost less."""


def measure() -> dict[str, int]:
    """Return gas used by each call, in the dearest case met in use."""
    world = World()
    gas: dict[str, int] = {}
    gas["deposit, the vault's first"] = world.deposit(123_456_789 * USDC)["gasUsed"]
    gas["deposit, first of a wallet"] = world.deposit(
        987_654_321, wallet=world.accounts[5], sub=31
    )["gasUsed"]
    gas["deposit"] = world.deposit(987_654_321, wallet=world.accounts[5], sub=31)["gasUsed"]
    for index in range(4):
        world.withdrawals[index] = (world.accounts[5 + index], 12_345_678_901 + index)
    first = world.next()
    gas["submit, the first"] = world.transact(world.submission(first))["gasUsed"]
    world.deposit()
    # A negative net total has the dearest bytes.
    worst = world.next(withdrawn_total=2**63 - 1, positive_total=2**63 - 1)
    gas["submit"] = world.transact(world.submission(worst))["gasUsed"]
    number = worst.number
    gas["claim, the first"] = world.transact(world.claim(number, 0))["gasUsed"]
    gas["claim"] = world.transact(world.claim(number, 1))["gasUsed"]
    gas["deploy, three contracts"] = deployment(world)
    return gas


def deployment(world: World) -> int:
    before = world.w3.eth.block_number
    world.deploy_vault(world.group.key)
    return int(world.w3.eth.get_block(before + 1)["gasUsed"])


def test_gas_is_within_its_limits() -> None:
    measured = measure()
    table = json.loads(TABLE.read_text())
    if os.environ.get("FAIRLANE_WRITE_GAS"):
        table["measured"] = measured
        TABLE.write_text(json.dumps(table, indent=1) + "\n")
    assert set(measured) == set(table["measured"]) == set(table["limits"])
    for what, gas in measured.items():
        assert gas <= table["limits"][what], what
        assert abs(gas - table["measured"][what]) <= DRIFT_MAX, what
