"""Twins: Byzantine replicas made of two honest ones with the same key, scenario by scenario."""

from __future__ import annotations

from ops.sim.twins.arena import Outcome, play
from ops.sim.twins.campaign import Failure, Tally, run_all
from ops.sim.twins.generate import Space
from ops.sim.twins.scenario import BadScenario, Scenario, Setting, read_file, write_file

__all__ = [
    "BadScenario",
    "Failure",
    "Outcome",
    "Scenario",
    "Setting",
    "Space",
    "Tally",
    "play",
    "read_file",
    "run_all",
    "write_file",
]
