"""Damage to all inputs: no traceback, hang, wrong result or executed code. `bench_mutations.py` runs thousands."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path

import pytest

import forked
from export_helpers import some_items, write_store
from mutation_run import run
from mutation_targets import Target, read_store, strictly
from mutations import Payload, mutate
from trichord.store.manifest import part_paths


@pytest.mark.slow
def test_150_mutations() -> None:
    outcome = run(150, seed=1, num_workers=2, start=forked.Popen)
    assert not outcome.failures, json.dumps(outcome.failures[:3], indent=1)
    assert sum(outcome.counts.values()) == 150 and outcome.total("refused") > 30 and outcome.total("same") > 10


@pytest.mark.slow
def test_forbidden_outcomes_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests the judge itself: different results, tracebacks, unprintable lines, executed payloads."""
    from mutation_run import one

    folder = tmp_path / "t"
    folder.mkdir()
    (folder / "a.pkl").write_bytes(pickle.dumps([{"a": 1}]))

    def outcome(read: object, seed: int = 0) -> str:
        target = Target("t", folder, read, strictly)  # type: ignore[arg-type]
        return str(one(target, {"a": "1"}, 0, random.Random(seed), tmp_path)["outcome"])

    def raising(error: Exception) -> object:
        def read(path: Path) -> dict[str, str]:
            raise error

        return read

    assert outcome(lambda path: {"a": "2"}) == "wrong result" and outcome(lambda path: {"a": "1"}) == "same"
    assert outcome(raising(KeyError("x"))) == "traceback"
    assert outcome(raising(AssertionError("x"))) == "wrong result"
    monkeypatch.setattr("trichord.errors.printable", str)
    from trichord.errors import TrichordError

    assert outcome(raising(TrichordError("a\nb"))) == "not one printable line"

    def careless(path: Path) -> dict[str, str]:
        (path / "a.pkl").write_bytes(pickle.dumps(Payload(tmp_path / "marker")))
        pickle.loads((path / "a.pkl").read_bytes())
        return {"a": "1"}

    assert outcome(careless) == "executed"


def test_any_changed_byte_of_a_part_is_reported(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "s", some_items(3)).path
    sound = read_store(Path(folder))
    assert "problems" not in sound
    for path in (part_paths(Path(folder))[0], part_paths(Path(folder))[0].with_suffix(".safetensors")):
        whole = path.read_bytes()
        rng = random.Random(0)
        for _ in range(15):
            data = bytearray(whole)
            data[rng.randrange(8, len(data))] ^= 1 << rng.randrange(8)
            path.write_bytes(bytes(data))
            try:
                content = read_store(Path(folder))  # a byte of Parquet's metadata may change no row
                assert "problems" in content or (content == sound and path.suffix == ".parquet")
            except ValueError as error:
                assert str(path.stem) in str(error)
        path.write_bytes(whole)


def test_mutations_repeat(tmp_path: Path) -> None:
    """Mutations depend only on the seed."""
    outcomes = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        files = [folder / "x.json", folder / "y.json"]
        for file in files:
            file.write_text('{"a": [1, {"b": "c"}], "d": null}')
        kinds = [mutate(files[0], files, random.Random(n), tmp_path / "m") for n in range(3) if files[0].is_file()]
        outcomes.append((kinds, [file.read_bytes() for file in files if file.is_file()]))
    assert outcomes[0] == outcomes[1]
