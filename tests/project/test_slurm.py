"""The SLURM examples are valid bash, and the commands that they run have known options."""

from __future__ import annotations

import functools
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from paths import ROOT
from trichord import cli
from trichord.cli import training

SCRIPTS = sorted((ROOT / "examples" / "slurm").glob("*.sbatch"))
SLURM = {"SLURM_CPUS_PER_TASK": "32", "SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_ID": "71", "SLURM_JOB_NODELIST": "n[1-2]",
         "SLURM_JOB_NUM_NODES": "2", "SLURM_ARRAY_TASK_ID": "3"}  # fmt: skip
GIVEN = {"STORE": "/data/a store", "OUT": "/data/out", "VIDEOS": "/data/videos", "RUN": "/data/a run"}


def commands_of(script: Path, folder: Path, **variables: str) -> list[list[str]]:
    """Return the words of every command that a script would start on its node."""
    for name in ("torchrun", "trichord", "srun"):
        (folder / name).write_text(
            '#!/bin/bash\nprintf "%s\\0" "$(basename "$0")" "$@" >> "$LOG"; printf "\\n" >> "$LOG"\n'
        )
    (folder / "scontrol").write_text("#!/bin/bash\nprintf 'n1\\nn2\\n'\n")
    for tool in folder.iterdir():
        tool.chmod(0o755)
    log = folder / "log"
    log.write_text("")
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "LOG": str(log), **SLURM, **variables}
    subprocess.run(["bash", str(script)], env=environment, check=True, capture_output=True, timeout=60)
    return [line.rstrip("\0").split("\0") for line in log.read_text().splitlines()]


def test_there_are_examples() -> None:
    assert {"one_node", "several_nodes", "extract_array"} <= {script.stem for script in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_bash_and_slurm_read_it(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True, timeout=60)
    options = re.findall(r"^#SBATCH (.*)$", script.read_text(), re.MULTILINE)
    assert all(re.fullmatch(r"--[a-z-]+(=\S+)?", option) for option in options) and len(options) > 5
    first_command = script.read_text().index("set -euo pipefail")
    assert "#SBATCH" not in script.read_text()[first_command:]  # SLURM stops reading at the first command


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_scripts_run_known_commands(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trichord.extraction import extract as extraction
    from trichord.study import freeze, run

    calls: list[Any] = []

    def study(store: Any, out: Path, orders: list[str], seeds: list[int], recipe: Any, **options: Any) -> None:
        calls.append((str(store), len(orders), recipe.check()))

    @functools.wraps(extraction.extract)
    def extract(**options: Any) -> str:
        calls.append((str(options["store"]), str(options["videos"]), options["shard"]))
        return "done"

    def frozen(run: Path, store: Any, **options: Any) -> list[Path]:
        calls.append((str(store), str(run), options["order"], options["cluster"]))
        return []

    monkeypatch.setattr(freeze, "freeze", frozen)
    monkeypatch.setattr(run, "run_study", study)
    monkeypatch.setattr(extraction, "extract", extract)
    monkeypatch.setattr(training, "print_study", lambda *_: None)
    (words,) = commands_of(script, tmp_path, **GIVEN)
    start = words.index("trichord")
    assert start == 0 or (words[start - 1] == "-m" and "torchrun" in words)
    assert cli.main([*words[start + 1 :], "--debug"]) == 0
    (call,) = calls
    assert call[0] == GIVEN["STORE"]
    expected = {"extract_array": (GIVEN["VIDEOS"], "3/8"), "freeze_array": (GIVEN["RUN"], None, None)}
    assert call[1:] == expected[script.stem] if script.stem in expected else call[1] == 4


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_missing_store_is_reported(script: Path, tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        commands_of(script, tmp_path)
    assert re.search(rb"set .*STORE", caught.value.stderr)


def test_options_of_torchrun_are_known(tmp_path: Path) -> None:
    from torch.distributed.run import get_args_parser

    for name in ("one_node", "several_nodes"):
        (words,) = commands_of(SCRIPTS[0].with_name(f"{name}.sbatch"), tmp_path, **GIVEN)
        options = get_args_parser().parse_args(words[words.index("torchrun") + 1 :])
        assert options.module and options.training_script == "trichord" and options.nproc_per_node == "4"
        assert name == "one_node" or (options.nnodes, options.rdzv_endpoint) == ("2", "n1:20071")
