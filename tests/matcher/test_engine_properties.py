"""Claims about every flow of commands, prices, deposits and rubbish through the engine."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matcher import liquidation
from matcher.engine import Engine
from matcher.state import Account, State
from tests.matcher import naive_margin as naive
from tests.matcher.flows import Step, flows, funded, perform
from tests.matcher.invariants import check_state, checked

FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@given(flows)
@FEW
def test_invariants_hold_after_every_step(flow: list[Step]) -> None:
    world = funded()
    check_state(world)
    for step in flow:
        checked(world, step)


@given(flows)
@FEW
def test_an_accepted_order_leaves_initial_margin_or_only_reduces(flow: list[Step]) -> None:
    world = funded()
    for step in flow:
        before = {
            (account.index, id_): (held.lots, held.buys, held.sells)
            for account in world.state.accounts
            for id_, held in account.positions.items()
        }
        _, events = perform(world, step)
        if step.kind != "place" or events[-1].status in ("rejected",):
            continue
        who, sub, instrument = step.arguments[:3]
        account = world.state.wallets[_address(who)].accounts[sub]
        if naive.margin(world.state, account, True) >= 0:
            continue
        lots, buys, sells = before[account.index, instrument]
        held = account.positions.get(instrument)
        now = (held.lots, held.buys, held.sells) if held else (0, 0, 0)
        assert naive.margin(world.state, account, False) >= 0
        assert abs(now[0]) <= abs(lots) and now[0] * lots >= 0
        opens = (now[1] - buys, now[2] - sells)
        assert opens[0 if lots > 0 else 1] <= 0, "opened on the increasing side"


def _address(number: int) -> bytes:
    return b"\xaa" + number.to_bytes(19, "big")


@given(flows)
@FEW
def test_nobody_above_maintenance_is_liquidated(flow: list[Step]) -> None:
    def watched(state: State, account: Account) -> None:
        begun = account.liquidation is not None
        assert begun or naive.margin(state, account, False) < 0 or account.index in disturbed
        for position in account.positions.values():
            assert state.is_live(position.market), "liquidated on a stale price"
        trades = state.next_trade
        real(state, account)
        if state.next_trade != trades:
            disturbed.update(account.index for account in state.margins_stale)

    real = liquidation.step
    disturbed: set[int] = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(liquidation, "step", watched)
        world = funded()
        for step in flow:
            disturbed.clear()
            perform(world, step)


@given(flows, st.integers(0, 60))
@FEW
def test_a_restored_engine_goes_on_bit_for_bit(flow: list[Step], at: int) -> None:
    world, twin = funded(), funded()
    for number, step in enumerate(flow):
        if number == min(at, len(flow) - 1):
            data = world.engine.export_state()
            twin.engine = Engine(twin.genesis, twin.n, twin.f)
            twin.engine.restore_state(data)
            assert twin.engine.export_state() == data
            assert twin.engine.state_digest() == world.engine.state_digest()
        first = perform(world, step)
        assert perform(twin, step) == first
        if number % 3 == 0:
            assert world.engine.state_digest() == twin.engine.state_digest()
    assert world.engine.state_digest() == twin.engine.state_digest()
    assert world.engine.checkpoint_state() == twin.engine.checkpoint_state()
