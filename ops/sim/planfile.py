"""A plan as JSON, so that any run can be written down, changed by hand and repeated.

Only what differs from the defaults is written. docs/guides/simulator.md describes the fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

import msgspec

from consensus.committee import Parameters
from ops.sim.liars import LIARS
from ops.sim.plan import (
    DIALS,
    BadPlan,
    ClockStep,
    Crash,
    Fault,
    MachineDials,
    NetworkDials,
    Partition,
    Plan,
    PowerLoss,
    Stall,
)

FAULTS: Mapping[str, type[Fault]] = {
    "crash": Crash,
    "power_loss": PowerLoss,
    "partition": Partition,
    "stall": Stall,
    "clock_step": ClockStep,
}
FILE_BYTES_MAX = 1 << 20

T = TypeVar("T")


def write_plan(plan: Plan) -> str:
    """Return `plan` as one line of JSON that `read_plan` takes."""
    data: dict[str, Any] = {"nodes": plan.nodes, "seed": plan.seed}
    data["duration_ms"] = plan.duration_ms
    for name, value in _changed(plan).items():
        if name == "parameters":
            value = _changed_parameters(plan.parameters)
        elif name in ("network", "machines"):
            value = _changed(value)
        elif name == "liars":
            value = {str(node): kind for node, kind in sorted(value.items())}
        elif name == "faults":
            value = [_fault(fault) for fault in value]
        data[name] = value
    return json.dumps(data, separators=(",", ":"))


def _fault(fault: Fault) -> dict[str, Any]:
    name = next(name for name, kind in FAULTS.items() if type(fault) is kind)
    return {name: {each.name: getattr(fault, each.name) for each in fields(fault)}}


def _changed(thing: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that differ from their defaults, in order."""
    changed = {}
    for field in fields(thing):
        factory = field.default_factory
        default = factory() if factory is not MISSING else field.default
        value = getattr(thing, field.name)
        if default is not MISSING and value != default:
            changed[field.name] = value
    return changed


def _changed_parameters(parameters: Parameters) -> dict[str, Any]:
    plain = msgspec.structs.asdict(DIALS)
    given = msgspec.structs.asdict(parameters)
    return {name: value for name, value in given.items() if value != plain[name]}


def read_plan(text: str) -> Plan:
    """Return the plan behind JSON; it is checked when it is run. Errors: BadPlan."""
    if len(text) > FILE_BYTES_MAX:
        raise BadPlan(f"a plan has at most {FILE_BYTES_MAX} characters")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadPlan(f"no JSON: {error}") from None
    data = _object(data, "a plan")
    made: dict[str, Any] = {}
    for name, value in data.items():
        if name == "parameters":
            made[name] = _parameters(_object(value, name))
        elif name == "network":
            made[name] = _convert(value, NetworkDials, name)
        elif name == "machines":
            made[name] = _convert(value, MachineDials, name)
        elif name == "liars":
            made[name] = _liars(value)
        elif name == "faults":
            made[name] = tuple(_read_fault(each) for each in _list(value, name))
        elif name in _PLAIN:
            made[name] = _convert(value, _PLAIN[name], name)
        else:
            raise BadPlan(f"a plan has no field {name!r}")
    missing = [name for name in ("nodes", "seed", "duration_ms") if name not in made]
    if missing:
        raise BadPlan(f"a plan needs {', '.join(missing)}")
    return Plan(**made)


_PLAIN: Mapping[str, Any] = {
    "nodes": int,
    "seed": int,
    "duration_ms": int,
    "skews_ms": tuple[int, ...],
    "drifts_ppm": tuple[int, ...],
    "calm_ms": int,
    "commands_per_s": int,
    "real_keys": bool,
    "retain_blocks": int,
}


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadPlan(f"{where} is an object")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadPlan(f"{where} is a list")
    return value


def _convert(value: Any, kind: type[T], where: str) -> T:
    if isinstance(value, dict):
        names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
        for name in value:
            if name not in names:
                raise BadPlan(f"{where} has no field {name!r}")
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise BadPlan(f"{where}: {error}") from None


def _parameters(given: dict[str, Any]) -> Parameters:
    names = Parameters.__struct_fields__
    for name, value in given.items():
        if name not in names or isinstance(value, bool) or not isinstance(value, int):
            raise BadPlan(f"parameters: {name!r} is none, or no number")
    return msgspec.structs.replace(DIALS, **given)


def _liars(given: Any) -> dict[int, str]:
    liars = {}
    for node, kind in _object(given, "liars").items():
        if not node.isdecimal() or kind not in LIARS:
            raise BadPlan(f"liars: no behaviour {kind!r} for node {node!r}")
        liars[int(node)] = kind
    return liars


def _read_fault(given: Any) -> Fault:
    name, value = next(iter(_object(given, "a fault").items()), ("", None))
    if len(given) != 1 or name not in FAULTS:
        raise BadPlan(f"a fault is one of {', '.join(FAULTS)}")
    return _convert(value, FAULTS[name], name)
