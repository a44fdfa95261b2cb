"""`python -m tests.simulation SEED` replays one seed and tells its history; `FIRST:END` runs many.

    python -m tests.simulation 4711                  one seed, every fault and every line of the workers' logs
    python -m tests.simulation 0:2000 --jobs 2       many; exit 1 when one is wrong
    python -m tests.simulation 0:2000 --mutant NAME  with one rule switched off: exit 1 at the first seed that shows it

The order in sets of texts is part of a history, so the hash of texts must not be drawn anew: the module starts itself
again with PYTHONHASHSEED=0.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from tests.simulation.mutants import MUTANTS
from tests.simulation.run import Outcome, run_seed, run_seeds

BATCH = 25  # seeds that one process runs before it tells how it went


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m tests.simulation", description=__doc__.partition("\n")[0])
    parser.add_argument("seeds", help="SEED, or FIRST:END without END, several separated by commas")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="a rule of the protocol to switch off")
    parser.add_argument("--figures", action="store_true", help="print faults and figures of the whole run")
    asked = parser.parse_args(arguments)
    if asked.seeds.isdecimal():
        return _replay(int(asked.seeds), asked.mutant)
    seeds = [seed for each in asked.seeds.split(",") for seed in _range(each)]
    return _run(seeds, asked.jobs, asked.mutant, asked.figures)


def _range(text: str) -> range:
    first, many, end = text.partition(":")
    return range(int(first), int(end)) if many else range(int(first), int(first) + 1)


def _replay(seed: int, mutant: str | None) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    outcome = run_seed(seed, mutant, tell=True)
    _print(outcome, mutant)
    return 1 if outcome.wrong else 0


def _run(seeds: Sequence[int], jobs: int, mutant: str | None, figures: bool) -> int:
    logging.disable(logging.CRITICAL)
    began = time.monotonic()
    faults: Counter[str] = Counter()
    sums: Counter[str] = Counter()
    wrong = done = 0
    for outcome in _outcomes(seeds, jobs, mutant):
        done += 1
        faults += outcome.faults
        sums += outcome.figures
        if outcome.wrong:
            wrong += 1
            _print(outcome, mutant)
            if mutant:
                break
    seconds = time.monotonic() - began
    sys.stdout.write(f"{done} seeds, {wrong} wrong, {seconds:.0f} s, {done / seconds:.1f} seeds/s\n")
    if figures:
        for name, counter in (("faults", faults), ("figures", sums)):
            sys.stdout.write(f"{name}: {sum(counter.values())}\n")
            sys.stdout.writelines(f"  {each}: {count}\n" for each, count in sorted(counter.items()))
    return 1 if wrong else 0


def _outcomes(seeds: Sequence[int], jobs: int, mutant: str | None) -> Iterator[Outcome]:
    if jobs == 1:
        yield from (run_seed(seed, mutant) for seed in seeds)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        batches = [seeds[at : at + BATCH] for at in range(0, len(seeds), BATCH)]
        for done in as_completed([pool.submit(run_seeds, batch, mutant) for batch in batches]):
            yield from done.result()


def _print(outcome: Outcome, mutant: str | None) -> None:
    if not outcome.wrong:
        sys.stdout.write(f"seed {outcome.seed}: nothing is wrong\n")
        return
    again = f"python -m tests.simulation {outcome.seed}" + (f" --mutant {mutant}" if mutant else "")
    sys.stdout.write(f"seed {outcome.seed} is wrong; its history: {again}\n")
    sys.stdout.writelines(f"  {each}\n" for each in outcome.wrong[:5])
    sys.stdout.flush()


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        os.execve(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]], environment)
    sys.exit(main(sys.argv[1:]))
