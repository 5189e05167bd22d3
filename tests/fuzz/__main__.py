"""`python -m tests.fuzz [TARGET ...] --runs 10_000_000`: fuzz the readers of foreign bytes.

With `--atheris`, libFuzzer chooses by coverage (`requirements/fuzz.txt`, x86-64 Linux); else the
seeded mutator of `tests/fuzz/mutate.py` runs, which needs nothing. A finding prints its bytes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from ops.recursion import cap_recursion

FRAME_MAX = 1 << 13


def plain(names: list[str], seed: int, runs: int) -> int:
    """Fuzz the named targets, or all, in turn, with the seeded mutator."""
    from tests.fuzz.run import Finding, fuzz
    from tests.fuzz.targets import targets

    wrong = 0
    for target in targets():
        if names and target.name not in names:
            continue
        try:
            print(fuzz(target, seed, runs), flush=True)
        except Finding as finding:
            wrong += 1
            print(f"fuzz: {finding}"[:20_000], flush=True)
    return 1 if wrong else 0


def covered(name: str, seed: int, runs: int) -> None:
    """Fuzz one target by coverage; libFuzzer ends the process."""
    import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]

    with atheris.instrument_imports(include=["consensus", "matcher", "p2p", "settlement", "ops"]):
        from tests.fuzz.targets import targets
    import random

    from tests.fuzz.mutate import mutated
    from tests.fuzz.run import one

    target = next(t for t in targets() if t.name == name)

    def mutate(data: bytes, size_max: int, number: int) -> bytes:
        return mutated(random.Random(number), [data] * 3 + list(target.seeds[::7]), target.prefix)[
            :size_max
        ]

    with tempfile.TemporaryDirectory(prefix="fairlane-fuzz-") as corpus:
        for k, data in enumerate(target.seeds):
            (Path(corpus) / f"seed-{k}").write_bytes(data)
        flags = [f"-runs={runs}", f"-seed={seed + 1}", f"-max_len={FRAME_MAX}", "-len_control=0"]
        flags += ["-rss_limit_mb=2048", "-timeout=5", "-print_final_stats=1"]
        atheris.Setup(
            [sys.argv[0], *flags, corpus],
            lambda data: one(target, data) and None,
            custom_mutator=mutate,
        )
        atheris.Fuzz()


def main() -> int:
    """Run; the exit status says whether nothing was found."""
    cap_recursion()
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help="message, admission, ...; by default all")
    parser.add_argument("--runs", type=lambda text: int(text.replace("_", "")), default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atheris", action="store_true", help="by coverage, one target")
    options = parser.parse_args()
    if not options.atheris:
        return plain(options.targets, options.seed, options.runs)
    try:
        import atheris  # noqa: F401
    except ImportError:
        print(
            "fuzz: no atheris (pip install --require-hashes -r requirements/fuzz.txt, on x86-64\n"
            "fuzz: Linux); going on with the seeded mutator",
            file=sys.stderr,
        )
        return plain(options.targets, options.seed, options.runs)
    if len(options.targets) != 1:
        parser.error("--atheris takes one target")
    covered(options.targets[0], options.seed, options.runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
