"""Compile and run the model of the voting rules with spin.

`python -m tests.formal.spin` prints every check's verdict and counts; `--long` adds the large ones;
`--show NAME` prints the steps of a counterexample. Source: spin 6.5, ADR-0013.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

MODEL = Path(__file__).with_name("voting.pml")
SECONDS_MAX = 1_800
MEMORY_MB_MAX = 6_000
DEPTH_MAX = 100_000


@dataclass(frozen=True)
class Check:
    """One run of the model: which flags, how it is searched, and what must come out."""

    flags: tuple[str, ...]
    fails: bool = False
    """Whether a counterexample is the right answer."""
    bfs: bool = False
    """Breadth first, for the shortest counterexample."""
    bits: int = 0
    """With 2**bits a bitstate search, which may miss states; 0: every state is kept."""
    compile: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Verdict:
    """What one run said. `steps` is the counterexample, empty when there is none."""

    failed: bool
    states: int
    transitions: int
    whole: bool
    seconds: float
    claim: str
    steps: tuple[str, ...]
    hash_factor: float = 0.0

    def __str__(self) -> str:
        found = f"{len(self.steps)} steps to a counterexample" if self.failed else "holds"
        reach = "" if self.failed or self.whole else f" (hash factor {self.hash_factor:.0f})"
        return (
            f"{found}: {self.states} states{reach}, {self.transitions} transitions, "
            f"{self.seconds:.1f} s"
        )


def size(rounds: int, slots: int, *more: str) -> tuple[str, ...]:
    return (f"ROUNDS={rounds}", f"SLOTS={slots}", *more)


FORK = "AGREEMENT_ONLY"
SOUND = {
    "two rounds, two proposals each": Check(size(2, 2)),
    "two rounds, two proposals each, one state of those alike": Check(size(2, 2, "SYMMETRY")),
    "two rounds, four proposals each": Check(size(2, 4, "SYMMETRY")),
    "five replicas": Check(size(2, 1, "HONEST=4", "SYMMETRY")),
    "three rounds": Check(size(3, 1, "SYMMETRY")),
    "lock raised only with a commit vote": Check(
        size(2, 2, "SYMMETRY", FORK, "M_LOCK_WITH_COMMIT"), why="no fork: this one only stops"
    ),
}
"""What must hold, in seconds."""

BROKEN = {
    "a block is committed": Check(
        size(3, 1, FORK, "REACH=3"), fails=True, bfs=True, why="the model is not empty"
    ),
    "a quorum of two": Check(size(1, 2, FORK, "M_QUORUM"), fails=True, bfs=True),
    "a quorum of 2f+1 among five": Check(
        size(1, 2, FORK, "HONEST=4", "M_QUORUM"), fails=True, bfs=True
    ),
    "no hi_timeout check": Check(size(2, 1, FORK, "M_HI_TIMEOUT"), fails=True, bfs=True),
    "a commit vote that leaves the lock": Check(
        size(2, 1, FORK, "M_LEAVES_LOCK"), fails=True, bfs=True
    ),
    "a forgotten last_voted": Check(size(2, 2, FORK, "M_FORGETS"), fails=True, bfs=True),
    "a TC that ignores the highest QC": Check(size(3, 1, FORK, "M_TC"), fails=True, bfs=True),
    "a two-chain whose rounds do not follow": Check(
        size(3, 1, "M_GAP"), fails=True, why="a certificate that leaves a committed block"
    ),
    "lock raised only with a commit vote": Check(
        size(2, 1, "M_LOCK_WITH_COMMIT"), fails=True, bfs=True, why="a round nobody may give up"
    ),
}
"""What must fail, in seconds: each rule is taken away, and the fork or the stop is found."""

LONG = {
    "a two-chain whose rounds do not follow, to the fork": Check(
        size(4, 1, FORK, "M_GAP", "COMMIT_VOTES_LOST", "SYMMETRY"),
        fails=True,
        compile=("P_REVERSE",),
        why="four rounds: two gaps on two branches",
    ),
    "three rounds, names apart": Check(size(3, 1)),
    "three rounds, two proposals each": Check(size(3, 2, "SYMMETRY"), bits=34),
    "four rounds, commit votes lost": Check(size(4, 1, "SYMMETRY", "COMMIT_VOTES_LOST"), bits=34),
    "four rounds": Check(size(4, 1, "SYMMETRY"), bits=34),
}
"""Minutes to an hour each; `make model ARGS=--long`."""


def missing() -> str | None:
    """Say what is not installed, or None."""
    for tool, package in (("spin", "spin"), ("gcc", "gcc")):
        if shutil.which(tool) is None:
            return f"{tool} is not installed: apt-get install {package}"
    return None


def _run(command: list[str], at: str, seconds_max: float = SECONDS_MAX) -> str:
    done = subprocess.run(
        command, cwd=at, capture_output=True, text=True, timeout=seconds_max, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def run(check: Check, seconds_max: int = SECONDS_MAX) -> Verdict:
    """Search the model. A search that takes longer than `seconds_max` is cut and not whole."""
    with tempfile.TemporaryDirectory(prefix="fairlane-spin-") as at:
        shutil.copy(MODEL, at)
        _run(["spin", *(f"-D{flag}" for flag in check.flags), "-a", MODEL.name], at)
        options = ["SAFETY", "NOREDUCE", "NOFAIR", f"MEMLIM={MEMORY_MB_MAX}", *check.compile]
        options += ["BITSTATE"] if check.bits else ["BFS"] if check.bfs else []
        _run(["gcc", "-O1", "-w", *(f"-D{option}" for option in options), "-o", "pan", "pan.c"], at)
        limits = [f"-m{DEPTH_MAX}", "-n", f"-Q{max(1, seconds_max // 60)}"]
        limits += [f"-w{check.bits}", "-k3"] if check.bits else []
        began = time.monotonic()
        said = _run(["./pan", *limits], at, seconds_max + 120)
        seconds = time.monotonic() - began
        steps: tuple[str, ...] = ()
        if (Path(at) / f"{MODEL.name}.trail").exists():
            # The replay ends with the failed assertion, and so not with status 0.
            again = subprocess.run(
                ["./pan", "-r", "-n"], cwd=at, capture_output=True, text=True, check=False
            )
            found = re.findall(r"^\s*(replica \d .*)$", again.stdout, re.MULTILINE)
            steps = tuple(found)
    return _verdict(said, seconds, steps)


def _verdict(said: str, seconds: float, steps: tuple[str, ...]) -> Verdict:
    def number(pattern: str) -> float:
        match = re.search(pattern, said)
        return float(match.group(1)) if match else 0.0

    if "max search depth too small" in said or "aborting" in said:
        raise RuntimeError(f"the search was cut: {said[-2000:]}")
    errors = re.search(r"errors: (\d+)", said)
    if errors is None:
        raise RuntimeError(f"no verdict: {said[-2000:]}")
    claim = re.search(r"pan:1: (.*?) \(at depth", said)
    cut = any(sign in said for sign in ("Bit statespace", "Search not completed"))
    return Verdict(
        failed=errors.group(1) != "0",
        states=int(number(r"([\d.e+]+) states, stored")),
        transitions=int(number(r"([\d.e+]+) transitions")),
        whole=not cut,
        seconds=seconds,
        claim=claim.group(1) if claim else "",
        steps=steps,
        hash_factor=number(r"hash factor: ([\d.e+]+)"),
    )


def main() -> int:
    """Run the checks and print a line for each; the exit status says whether all came out right."""
    parser = argparse.ArgumentParser(description="check the model of the voting rules")
    parser.add_argument("--long", action="store_true", help="the large searches too")
    parser.add_argument("--only", default="", help="checks whose name contains this")
    parser.add_argument("--show", action="store_true", help="print the steps of counterexamples")
    parser.add_argument("--minutes", type=int, default=30, help="the most that one search takes")
    options = parser.parse_args()
    lacking = missing()
    if lacking is not None:
        print(f"model: {lacking}", file=sys.stderr)
        return 2
    wrong = 0
    named = [*SOUND.items(), *BROKEN.items(), *(LONG.items() if options.long else ())]
    for name, check in named:
        if options.only not in name:
            continue
        verdict = run(check, options.minutes * 60)
        right = verdict.failed == check.fails
        wrong += not right
        why = f" ({check.why})" if check.why else ""
        print(f"model: {'ok   ' if right else 'WRONG'} {name}{why}: {verdict}", flush=True)
        for step in verdict.steps if options.show or not right else ():
            print(f"           {step}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
