"""docs/api.md names every resource and every error code of the door, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import trio

from matcher.genesis import devnet_genesis
from ops.admission import SigningDomain
from ops.gateway.app import Door
from ops.gateway.limits import Limits
from ops.metrics import Metrics
from tests.ops.tiny_node import NETWORK, TinyLedger, TinyNode

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "api.md").read_text("utf-8")
SOURCES = (*sorted((ROOT / "ops" / "gateway").glob("*.py")), ROOT / "ops" / "admission.py")
RAISED = re.compile(
    r'(?:error\(|_error\(|Refused\()\s*[0-9]{3},\s*"([a-z_]+)"'
    r'|(?:Refusal|ErrorBody)\("([a-z_]+)"'
    r'|_probe\(self[^"]*"([a-z_]+)"'
    r'|code = "([a-z_]+)"'
)


def test_every_resource_is_documented() -> None:
    metrics = Metrics(replica=0, replicas=5, version="test", process=False)
    door = Door(
        TinyNode(TinyLedger(0)),
        SigningDomain(NETWORK, bytes(32)),
        devnet_genesis(),
        metrics.gateway,
        Limits(),
        trio.Event(),
    )
    documented = re.findall(r"^\| `(GET|POST) (/[^` ]*)` \|", TEXT, re.MULTILINE)
    served = {
        (route.method, path + ("/{}" if under else ""))
        for table, under in ((door._exact, False), (door._under, True))
        for path, routes in table.items()
        for route in routes
    }
    assert {(method, re.sub(r"{\w+}", "{}", path)) for method, path in documented} == served


def test_every_error_code_is_documented() -> None:
    section = TEXT.partition("## Error codes")[2].partition("\n## ")[0]
    documented = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    raised = {
        code
        for path in SOURCES
        for groups in RAISED.findall(path.read_text("utf-8"))
        for code in groups
        if code
    }
    assert raised >= {"bad_http", "not_ready", "busy", "expired"}, "the pattern finds them"
    assert documented == raised
