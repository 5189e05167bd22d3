"""Plans as JSON: what is written is read back, and what makes no sense is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.sim.options import Asked, build_plan, campaign_plan
from ops.sim.plan import BadPlan
from ops.sim.planfile import read_plan, write_plan
from ops.sim.report import run
from ops.sim.scenarios import SCENARIOS
from ops.sim.wan import WANS, one_way_us


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SCENARIOS)), st.integers(4, 31), st.integers(0, 1 << 40))
def test_every_plan_survives_its_own_text(scenario: str, nodes: int, seed: int) -> None:
    plan = build_plan(Asked(nodes=nodes, scenario=scenario), seed)
    assert read_plan(write_plan(plan)) == plan


def test_a_plan_read_back_is_the_same_run_to_the_byte() -> None:
    plan = campaign_plan(Asked(nodes=4), 11)
    assert run(read_plan(write_plan(plan))) == run(plan)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no JSON"),
        ("[1]", "a plan is an object"),
        ('{"nodes":4,"seed":1}', "needs duration_ms"),
        ('{"nodes":4,"seed":1,"duration_ms":"x"}', "duration_ms"),
        ('{"nodes":4,"seed":1,"duration_ms":9000,"colour":1}', "no field 'colour'"),
        ('{"nodes":4,"seed":1,"duration_ms":9000,"network":{"lost":0.1}}', "no field 'lost'"),
        ('{"nodes":4,"seed":1,"duration_ms":9000,"network":3}', "network"),
        ('{"nodes":4,"seed":1,"duration_ms":9000,"parameters":{"speed":3}}', "'speed'"),
        ('{"nodes":4,"seed":1,"duration_ms":9000,"liars":{"1":"kind"}}', "no behaviour 'kind'"),
        ('{"nodes":4,"seed":1,"duration_ms":9000,"faults":[{"fire":{}}]}', "a fault is one of"),
        ('{"nodes":4,"seed":1,"duration_ms":9000,"faults":[{"crash":{"node":1}}]}', "crash"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_what_is_no_plan_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(BadPlan, match=why.replace("'", ".")):
        read_plan(text)


def test_only_what_differs_from_the_defaults_is_written() -> None:
    plan = build_plan(Asked(nodes=4, liars=((1, "mute"),)), 3)
    written = {"nodes", "seed", "duration_ms", "liars"}
    assert set(json.loads(write_plan(plan))) == written
    slower = build_plan(Asked(nodes=4, round_timer_ms=700), 3)
    parameters = json.loads(write_plan(slower))["parameters"]
    assert parameters == {"round_timer_ms": 700, "round_timer_max_ms": 3_500}


@pytest.mark.parametrize("name", sorted(WANS))
def test_wide_areas_are_whole_and_about_symmetric(name: str) -> None:
    wan = WANS[name]
    assert len(wan.rtt_ms) == len(wan.sites)
    ways = one_way_us(name, 31)
    for a in range(31):
        for b in range(31):
            assert ways[a][b] > 0
            assert abs(ways[a][b] - ways[b][a]) <= 0.1 * ways[a][b] + 500
