"""Untrusted files that name a store, a URL or an encoder: nothing is opened that the user did not name."""

from __future__ import annotations

import ast
from pathlib import Path

import fsspec
import pytest
import yaml

import trichord
from security_helpers import refusal
from trichord import MCN, Embedder
from trichord.cli import main
from trichord.embedder.encoders import FeatureEncoders, file_of
from trichord.embedder.origin import parts_of_run
from trichord.recipes import load_recipe
from trichord.recipes.reading import MOST_VALUES, read_yaml
from trichord.store.location import SCHEMES, location, recorded_folder
from trichord.training.models import save_model

SECRETS = [
    "https://me:secret@host/store",
    "https://secret@host/store",
    "https://me%3Asecret@host/store",
    "https://me:se/secret@host/store",
    "https:/me:secret@host/store",
    "s3://key:secret@bucket/store",
    "zip://a::https://me:secret@host/x.zip",
    "simplecache::ftp://me:secret@host/x",
    "https://me:a::secret@host/x",
    "https://host/store?signature=secret",
    "az://container/store?sig=secret",
    "nosuch://secret@host/x",
]


@pytest.fixture
def unopened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if a file system is created."""

    def opened(url: str, **options: object) -> None:
        raise AssertionError(f"{url} was opened")

    monkeypatch.setattr(fsspec.core, "url_to_fs", opened)


@pytest.mark.parametrize("url", SECRETS)
def test_secrets_in_urls_are_refused_and_not_repeated(url: str, unopened: None) -> None:
    for source in (url, Path(url)):
        assert "secret" not in refusal(lambda source=source: location(source))  # type: ignore[misc]
    assert "secret" not in refusal(lambda: recorded_folder(url, Path("run.yaml")))
    if "://" in url:
        assert "secret" not in refusal(lambda: file_of(url))


def test_urls_without_secrets_are_kept() -> None:
    for url in (
        "hf://datasets/owner/name@main",
        "abfs://container@account.dfs/x",
        "http://127.0.0.1:9000/a@b",
        "s3://b/a?b",
    ):
        assert location(url) == url


@pytest.mark.parametrize(
    "url",
    ["reference://::http://host/refs.json", "zip://x::s3://bucket/x.zip", "filecache::s3://bucket", "s3://a::file://b"],
)
def test_chains_of_urls_are_refused(url: str, unopened: None) -> None:
    assert "chains of URLs are not supported" in refusal(lambda: location(url))


def test_schemes_that_open_other_urls_are_refused(unopened: None) -> None:
    assert not {"reference", "zip", "dir", "git", "generic", "dask", "jupyter"} & set(SCHEMES)
    for scheme in ("reference", "zip", "dir", "git", "generic", "data", "nosuch"):
        assert f"cannot be read from {scheme}://" in refusal(lambda scheme=scheme: location(f"{scheme}://x"))  # type: ignore[misc]


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """A stage folder of a study, whose run.yaml is written by tests."""
    folder = tmp_path / "study" / "stages" / "v"
    folder.mkdir(parents=True)
    model = MCN(modalities=("video",), video_dim=6, embed_dim=4, reconstruction_dim=None)
    save_model(folder, model, trained=("video",), visual_streams=("visual_2d",), settings={}, extra={})
    return folder


@pytest.mark.parametrize(
    "store",
    ["s3://bucket/store", "reference://::http://host/r.json", "http:/host/x", "a::b", "memory://x", "~/.ssh/no"],
)
def test_a_store_that_a_study_names_is_a_folder_or_refused(store: str, stage: Path, unopened: None) -> None:
    (stage.parent.parent / "run.yaml").write_text(yaml.safe_dump({"store": store}))
    for read in (lambda: parts_of_run(stage, None), lambda: Embedder.from_run(stage)):
        message = refusal(read)
        assert "run.yaml: records the store" in message and "with --store" in message


def test_a_run_description_that_multiplies_is_refused(stage: Path) -> None:
    lines = "store: x\na0: &a0 {k: v}\n"
    lines += "".join(f"a{i}: &a{i}\n  <<: [{','.join([f' *a{i - 1}'] * 10)}]\n" for i in range(1, 9))
    (stage.parent.parent / "run.yaml").write_text(lines)
    assert "merge keys (<<) are not supported" in refusal(lambda: parts_of_run(stage, None))


YAML = {
    "merge key": "a: {<<: {b: 1}}",
    "tagged merge key": "a: {!!merge x: {b: 1}}",
    "repeated key": "a: {b: 1, b: 2}",
    "repeated key among many": "".join(f"k{i}: 1\n" for i in range(4000)) + "k0: 1\n",
    "many keys": "".join(f"k{i}: 1\n" for i in range(MOST_VALUES)),
    "many items": "a: [" + "1, " * MOST_VALUES + "1]",
    "digits in base 60": "a: 1" + ":0" * 50_000,
    "digits in base 16": "a: 0x" + "f" * 50_000,
}


@pytest.mark.parametrize("name", YAML)
def test_yaml_stays_small(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(YAML[name])
    with pytest.raises(ValueError, match="merge keys|is repeated|keys and values|digits"):
        read_yaml(path)
    refusal(lambda: load_recipe(path))


@pytest.mark.parametrize("text", ["training: {file}", "config: {file}", "config: [{file}]", "training: [{file}]"])
def test_settings_name_no_further_file(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "further.yaml").write_text("epochs: 77")
    path = tmp_path / "settings.yaml"
    path.write_text(text.format(file=tmp_path / "further.yaml"))
    assert main(["train", "--config", str(path), "--store", "x", "--out", str(tmp_path / "out"), "--print_config"]) == 2
    printed = capsys.readouterr()
    assert "77" not in printed.out and "settings are not read from other files" in printed.err


def test_a_file_for_one_group_of_settings_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "training.yaml"
    words = ["train", "--training", str(path), "--store", "x", "--out", str(tmp_path / "out"), "--print_config"]
    path.write_text("a: &a {epochs: 77}\n<<: *a")
    assert main(words) == 2 and "are not supported" in capsys.readouterr().err


def test_yaml_is_read_in_one_place() -> None:
    """Every untrusted YAML file is read by `read_yaml`."""
    root = Path(trichord.__file__).parent
    readers = []
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "yaml"
                and node.attr.endswith(("load", "load_all", "compose", "compose_all", "parse", "scan"))
            ):
                readers.append(path.relative_to(root).as_posix())
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in ("yaml", "ruamel"):
                readers.append(path.relative_to(root).as_posix())
    assert readers == ["recipes/reading.py"]


@pytest.mark.parametrize("name", ["hf:/etc", "st:../evil", "hf:~/x", "hf:a/../../b", "log-mel,hf:/etc", "hf:."])
def test_an_encoder_name_in_a_model_is_not_a_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(self: FeatureEncoders, stream: str, name: str) -> None:
        raise AssertionError(f"{name} was loaded")

    monkeypatch.setattr(FeatureEncoders, "_load", loaded)
    for stream in ("visual_2d", "text", "audio"):
        encoders = FeatureEncoders({stream: {"name": name, "digest": "x"}})
        assert "a path; if you trust it" in refusal(lambda encoders=encoders, s=stream: encoders.get(s))  # type: ignore[misc]
    with pytest.raises(AssertionError, match="was loaded"):
        FeatureEncoders({"text": {"name": "hf:owner/name", "digest": "x"}}).get("text")
    with pytest.raises(AssertionError, match="was loaded"):
        FeatureEncoders({}, names={"text": name}).get("text")
