"""Commands and Python examples of the README and docs: every option exists, and examples without downloads run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import trichord
from paths import ROOT
from trichord.cli import command as commands
from trichord.cli import main, parsing
from trichord.extraction.extract import extract
from trichord.media import write_video

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text()
DOCUMENTATION = "\n".join(page.read_text() for page in PAGES)
QUICK = ["--training.max_steps", "1", "--training.tensorboard", "false", "--training.device", "cpu"]


def indented_commands(text: str = DOCUMENTATION) -> list[str]:
    """Return the `trichord` commands in indented blocks, without comments."""
    lines = re.findall(r"^ {4,}(?:torchrun --nproc_per_node 4 -m )?(trichord .+)$", text, re.MULTILINE)
    return [re.split(r"\s+#|; ", line)[0] for line in lines]


def inline_commands() -> list[str]:
    """Return the `trichord` commands with options that are quoted in sentences."""
    quoted = [" ".join(text.split()) for text in re.findall(r"`(trichord [^`]+)`", DOCUMENTATION)]
    return [text for text in quoted if " --" in text and not text.endswith("--help")]


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README, re.DOTALL)


class Parsed(Exception):  # noqa: N818 - ends a command that understood its words
    pass


@pytest.fixture
def parse_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every command end once its arguments are parsed."""
    parse: Callable[..., Any] = parsing.parse

    def parsed(parser: Any, words: list[str]) -> None:
        parse(parser, words)
        raise Parsed

    for module in (parsing, commands):
        monkeypatch.setattr(module, "parse", parsed)


@pytest.mark.parametrize("command", [*indented_commands(), *inline_commands()])
def test_every_command_has_the_options_that_it_is_given(command: str, parse_only: None) -> None:
    words = shlex.split(command.replace("NAME", "x"))[1:]
    if words == ["extract", "--list-encoders"]:
        assert main(words) == 0
        return
    if (words[0] == "extract" and "--store" not in words) or (
        words[0] == "evaluate" and not {"--store", "--embeddings"} & set(words)
    ):
        words += ["--store", "s"]
    if words[:2] == ["store", "export"] and "--layout" not in words:
        words += ["--layout", "npy"]
    with pytest.raises(Parsed):
        main([*words, "--debug"])


def test_there_are_commands_and_examples_to_test() -> None:
    assert len(indented_commands()) > 15 and len(inline_commands()) > 2 and len(python_blocks()) == 2
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"`make ([a-z-]+)", DOCUMENTATION)) <= set(targets)
    extras = re.findall(r"trichord\[(\w+)\]", DOCUMENTATION)
    project = (ROOT / "pyproject.toml").read_text()
    assert extras and all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras)


def test_every_setting_that_is_named_exists() -> None:
    from trichord.recipes import load_recipe, recipe_names

    settings = {f"{group}.{name}" for group, values in load_recipe("paper").to_dict().items() for name in values}
    documented = set(re.findall(r"--((?:training|data|model|loss|later_stages|evaluation)\.\w+)", DOCUMENTATION))
    assert len(documented) > 10 and documented <= settings
    assert {"debug", "small", "stamps", "paper", "mcn"} <= set(recipe_names())


def test_the_first_example_runs(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_store").symlink_to(tiny_store)
    sizes: dict[str, Any] = {"video_dim": 12, "embed_dim": 10, "word_dim": 6, "reconstruction_dim": 7}
    state = trichord.MCN(**sizes, audio_channels=(8, 16, 16, 32)).to_published()
    torch.save(state, tmp_path / "e29.pth")
    source = python_blocks()[0]
    quick = 'load_recipe("debug", training={"max_steps": 1, "tensorboard": False, "device": "cpu"})'
    for name, value in (('load_recipe("debug")', quick), ("4096", "12"), ("300", "6"), ("[0, 1, 2]", "[0]")):
        assert name in source
        source = source.replace(name, value)
    names: dict[str, Any] = {}
    exec(compile(source, "README.md", "exec"), names)
    assert "R@10" in (tmp_path / "my_study" / "table.md").read_text() and capsys.readouterr().out
    assert {name: tuple(rows.shape) for name, rows in names["embeddings"].items()} == {
        "video": (2, 10),
        "text": (2, 10),
    }


@pytest.mark.slow
def test_commands_of_the_readme_from_videos_to_an_exported_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs the commands from `extract` on in their order on two seconds of video, and then the example that reads the model."""
    monkeypatch.chdir(tmp_path)
    for folder, count in (("train", 3), ("test", 2)):
        (tmp_path / "my_videos" / folder).mkdir(parents=True)
        for k in range(count):
            random = np.random.default_rng([len(folder), k])
            path = tmp_path / "my_videos" / folder / f"{k}.mp4"
            pictures = random.integers(0, 255, (20, 32, 48, 3), np.uint8)
            write_video(path, pictures, 10, 0.1 * random.standard_normal(32_000).astype(np.float32))
            path.with_suffix(".csv").write_text(f"start,end,text\n0,2,stir the soup {k}\n")
    extract(Path("my_videos"), Path("my_store"), workers=0)
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).symlink_to(tmp_path / "my_videos" / "test" / "0.mp4")
    runs = ("train", "study", "evaluate my_", "export-model", "report my_study")
    for command in indented_commands(README + (ROOT / "docs" / "models.md").read_text()):
        words = shlex.split(command)[1:]
        if not command.removeprefix("trichord ").startswith(runs) or "paper" in words:
            continue
        if words[0] in ("train", "study"):
            words += QUICK
        if "--benchmark" in words:  # the benchmarks need published data
            at = words.index("--benchmark")
            words[at : at + 3] = []
        assert main([*words, "--debug"]) == 0, command
    card = (tmp_path / "my_scored_model" / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["model-index"], "the figures are in the card"
    names: dict[str, Any] = {}
    exec(compile(python_blocks()[1], "README.md", "exec"), names)
    assert names["scores"].shape == (1, 2)


def test_links_between_pages_lead_somewhere() -> None:
    pages = [*PAGES, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*/*.md"))]
    broken = [
        f"{page.name}: {target}"
        for page in pages
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert not broken
