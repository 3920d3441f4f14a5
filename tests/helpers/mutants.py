"""Insert hand-made faults into a copy of the source, one at a time, and check that the named tests notice each.

Run `make mutants`, or `python tests/helpers/mutants.py [NAME ...]` for some of them. They are not part of `make test`,
since they take about ten minutes. The table is in `mutant_table.py`. If the code that an entry changes has moved,
the script names the entry to update.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from pathlib import Path

import hypothesis
import pytest

from mutant_table import MUTANTS, Mutant
from paths import HELPERS, ROOT, TESTS

TIMEOUT_S = 600
ALREADY_IMPORTED = "ignore::pytest.PytestAssertRewriteWarning"
LIBRARIES = ("torch", "accelerate", "scipy.stats", "safetensors.torch", "pyarrow.compute", "av")
PROFILE = "mutants"
FAILED = 1  # exit code of pytest where a test failed; others mean that the tests did not run


def places_of(mutant: Mutant, source: Path) -> list[Path]:
    """Return the files that hold the old text, once per occurrence: the named file, or any other if the text has moved."""
    named_file = source / "trichord" / mutant.file
    others = sorted((source / "trichord").rglob("*.py"))
    for paths in ([named_file] if named_file.is_file() else [], others):
        if matches := [path for path in paths for _ in range(path.read_text().count(mutant.old))]:
            return matches
    return []


def fault_of(mutant: Mutant, source: Path) -> str:
    """Return the reason why a mutant cannot be applied or tested, or '' if it can."""
    if (count := len(places_of(mutant, source))) != 1:
        return f"its old text is there {count} times, not once (src/trichord/{mutant.file}); mend the line of the table"
    for node in mutant.tests:
        name, _, test = node.partition("::")
        if not (TESTS / name).is_file():
            return f"tests/{name} does not exist; name the tests that must notice the mutant"
        if test and f"def {test}(" not in (TESTS / name).read_text():
            return f"tests/{name} has no test {test}; name the tests that must notice the mutant"
    return ""


def run_tests(nodes: Iterable[str], source: Path) -> tuple[int, str]:
    """Run tests on a copy of the source; return the exit code of pytest and the last lines of its output.

    They run in a fork of this process, which has already imported the large libraries: importing them takes longer than most
    tests.
    """
    arguments = [
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "--no-header",
        "-W",
        ALREADY_IMPORTED,
        f"--hypothesis-profile={PROFILE}",
        *(str(TESTS / node) for node in nodes),
    ]
    with tempfile.TemporaryFile("w+") as output:
        child = os.fork()
        if child == 0:
            code = 4
            try:
                os.setsid()
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                os.chdir(ROOT)
                sys.path[:0] = [str(source), str(HELPERS)]
                os.environ["PYTHONPATH"] = f"{source}{os.pathsep}{HELPERS}"  # for the processes that tests start
                code = int(pytest.main(arguments))
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        code = ended(child)
        output.seek(0)
        return code, output.read()[-3000:]


def ended(child: int) -> int:
    """Wait for a process, at most `TIMEOUT_S`; return its exit code, or `FAILED` if it did not end by itself."""
    until_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < until_s:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return FAILED


def written(path: Path, text: str, stamp_s: float) -> None:
    """Write a source file with a unique time stamp, so that no bytecode of another version is used for it."""
    path.write_text(text)
    os.utime(path, (stamp_s, stamp_s))


def tried(mutant: Mutant, source: Path, number: int) -> tuple[bool, str]:
    """Return whether the tests notice the mutant, and a line about it. The source is restored afterwards."""
    (path,) = places_of(mutant, source)
    text = path.read_text()
    begun_s = time.monotonic()
    try:
        written(path, text.replace(mutant.old, mutant.new), 1_000_000_000 + 10 * number)
        code, output = run_tests(mutant.tests, source)
    finally:
        written(path, text, 1_000_000_005 + 10 * number)
    seconds = time.monotonic() - begun_s
    if code == FAILED:
        return True, f"caught    {mutant.name} ({seconds:.0f} s)"
    if code == 0:
        return False, f"GOT PAST  {mutant.name} ({seconds:.0f} s): {mutant.file}: {mutant.new.strip()[:100]}"
    return False, f"NOT TRIED {mutant.name}: pytest ended with code {code}\n{output}"


def chosen_of(names: list[str]) -> list[Mutant]:
    unknown = set(names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        sys.exit(f"there is no mutant {', '.join(sorted(unknown))}; see tests/helpers/mutant_table.py")
    return [mutant for mutant in MUTANTS if not names or mutant.name in names]


def main() -> int:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="Mutants to try. By default, all.")
    parser.add_argument("--check", action="store_true", help="Only see that every mutant can be made.")
    parser.add_argument(
        "--no-baseline", action="store_true", help="Do not run the tests on the unchanged source first."
    )
    arguments = parser.parse_args()
    chosen = chosen_of(arguments.names)
    if faults := [f"{mutant.name}: {why}" for mutant in chosen if (why := fault_of(mutant, ROOT / "src"))]:
        print("\n".join(faults))
        return 2
    if arguments.check:
        print(f"{len(chosen)} mutants can be made")
        return 0
    for library in LIBRARIES:
        importlib.import_module(library)
    # The same examples each time, no deadline, and no search for the smallest example that fails.
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile(PROFILE, derandomize=True, deadline=None, database=None, phases=phases)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("*.egg-info"))
        if not arguments.no_baseline:
            code, output = run_tests(dict.fromkeys(node for mutant in chosen for node in mutant.tests), source)
            if code != 0:
                print(f"the tests fail on the unchanged source; mend that first\n{output}")
                return 2
        missed = []
        for number, mutant in enumerate(chosen, start=1):
            caught, line = tried(mutant, source, number)
            print(line, flush=True)
            missed += [] if caught else [mutant.name]
    print(f"{len(chosen) - len(missed)} of {len(chosen)} mutants are caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
