"""Folders of untrusted pretrained models: no code, no other model or file, no network larger than its weights."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import tiny_transformers
from security_helpers import refusal
from trichord.errors import TrichordError
from trichord.features.audio import load_audio_encoder, plan_of
from trichord.features.model_files import check_folder, find_model, loading, weight_files
from trichord.features.network_size import FREE_MODULES, FREE_NUMBERS, FREE_TENSORS, WeightsSize, bounded_by
from trichord.features.text import load_text_encoder, text_encoder_info
from trichord.features.visual import load_visual_encoder

MODULE = "sentence_transformers.models.{}"
OWN = [{"path": "", "type": MODULE.format("Transformer")}, {"path": "1_Pooling", "type": MODULE.format("Pooling")}]


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A minimal model folder."""
    folder = tmp_path / "model"
    write(folder / "config.json", {"model_type": "bert", "num_hidden_layers": 2, "hidden_size": 16})
    write(folder / "modules.json", OWN)
    save_file({f"t{i}": torch.zeros(4, 4) for i in range(20)}, folder / "model.safetensors")
    return folder


def test_module_names_of_all_versions_are_known(folder: Path) -> None:
    for name in (
        "sentence_transformers.models.Transformer",
        "sentence_transformers.models.Dense.Dense",
        "sentence_transformers.base.modules.transformer.Transformer",
        "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    ):
        write(folder / "modules.json", [*OWN, {"path": "2_X", "type": name}])
        check_folder(folder)
    write(folder / "2_Dense" / "config.json", {"activation_function": "torch.nn.modules.activation.Tanh"})
    check_folder(folder)


@pytest.mark.parametrize(
    "name",
    [
        "evil.Payload",
        "modeling_evil.Payload",
        "sentence_transformers.SentenceTransformer",
        "sentence_transformers.util.http_get",
        "sentence_transformersevil.models.Dense",
        "sentence_transformers.models.Dense.os.abort",
        "sentence_transformers.models.Router\n",
        None,
        7,
    ],
)
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_modules_are_those_of_the_library_at_any_depth(name: Any, depth: int, folder: Path) -> None:
    write(folder.joinpath(*"abc"[:depth], "modules.json"), [*OWN, {"path": "", "type": name}])
    assert "which is not a module of sentence_transformers" in refusal(lambda: check_folder(folder))
    write(folder.joinpath(*"abc"[:depth], "modules.json"), OWN)
    write(
        folder.joinpath(*"abc"[:depth], "router_config.json"),
        {"types": {"query_0": name}, "structure": {"query": ["query_0"]}},
    )
    assert "which is not a module of sentence_transformers" in refusal(lambda: check_folder(folder))


@pytest.mark.parametrize("path", ["a/b", "../model", "..", "/etc", "a\\b", "./a", "C:", 3])
def test_modules_lie_beside_their_list(path: Any, folder: Path) -> None:
    write(folder / "modules.json", [{"path": path, "type": MODULE.format("Dense")}])
    assert "is not next to it" in refusal(lambda: check_folder(folder))
    write(folder / "modules.json", OWN)
    write(folder / "router_config.json", {"types": {str(path): MODULE.format("Dense")}})
    assert path == 3 or "is not next to it" in refusal(lambda: check_folder(folder))


def test_links_to_folders_are_refused(folder: Path) -> None:
    (folder / "1_Pooling").symlink_to(folder.parent)
    assert "is a link to a folder" in refusal(lambda: check_folder(folder))


CONFIGS: dict[str, dict[str, Any]] = {
    "auto_map": {"auto_map": {"AutoModel": "evil.Payload"}},
    "auto_map in a tower": {"text_config": {"auto_map": {"AutoModel": "x--evil.Payload"}}},
    "trust": {"model_args": {"trust_remote_code": True}},
    "an activation": {"activation_function": "os.abort"},
    "an activation that is none": {"activation_function": "torch.nn.modules.utils.os.abort"},
    "a tokenizer": {"tokenizer_class": "evil.Tokenizer"},
    "a method": {"modality_config": {"text": {"method": "push_to_hub"}}},
    "a kernel": {"vision_config": {"attn_implementation": "evil/kernel"}},
    "kernels by tower": {"_attn_implementation": {"text_config": "x"}, "experts_implementation": "evil/kernel:f"},
    "a backbone": {"backbone": "owner/name", "use_pretrained_backbone": True},
    "weights elsewhere": {"transformers_weights": "../x.safetensors"},
    "a configuration elsewhere": {"configuration_files": ["config.4.0.0.json"]},
    "a base": {"base_model_name_or_path": "owner/name"},
    "options of loading": {"model_args": {"gguf_file": "x"}},
    "more options of loading": {"config_args": {"subfolder": "x"}},
    "a file of this machine": {"tokenizer_file": "/etc/passwd"},
    "a file of this machine in a list": {"x": ["/etc/passwd"]},
    "a file below the home folder": {"vocab_file": "~"},
}


@pytest.mark.parametrize(
    "file", ["config.json", "tokenizer_config.json", "2_Dense/config.json", "a/b/sentence_bert_config.json"]
)
@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_name_no_code_and_no_file(name: str, file: str, folder: Path) -> None:
    content = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    write(folder / file, {**content, **CONFIGS[name]})
    if name == "a file below the home folder":
        write(folder / file, {**content, "vocab_file": "~/" + os.listdir(Path.home())[0]})
    assert "refused" in refusal(lambda: check_folder(folder))
    for load in (load_text_encoder, text_encoder_info, load_audio_encoder):
        assert "refused" in refusal(lambda load=load: load(f"hf:{folder}"))  # type: ignore[misc]
    assert "refused" in refusal(lambda: load_text_encoder(f"st:{folder}"))
    assert "refused" in refusal(lambda: load_visual_encoder(f"hf:{folder}"))


def test_the_origin_of_a_model_is_not_read_as_a_path(folder: Path) -> None:
    write(
        folder / "tokenizer_config.json",
        {"name_or_path": "/etc", "special_tokens_map_file": "/etc/passwd", "tokenizer_file": None},
    )
    write(
        folder / "a_config.json",
        {"_name_or_path": "/etc", "vocab_file": "/root/.cache/no such file", "model_max_length": 10**30},
    )
    check_folder(folder)


def test_adapters_are_refused(folder: Path) -> None:
    write(folder / "adapter_config.json", {})
    assert "contains an adapter" in refusal(lambda: check_folder(folder))


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a/b.safetensors"])
def test_an_index_lists_weights_beside_it(name: str, folder: Path) -> None:
    write(folder / "model.safetensors.index.json", {"weight_map": {"a": "model.safetensors"}})
    check_folder(folder)
    write(folder / "model.safetensors.index.json", {"weight_map": {"a": name}})
    assert "a file elsewhere" in refusal(lambda: check_folder(folder))


# ---- sizes

SIZES: list[dict[str, Any]] = [
    {"num_hidden_layers": 10_000_000},
    {"num_hidden_layers": 2_000},
    {"n_layer": 1e9},
    {"depths": [2, 10_000_000]},
    {"vision_config": {"encoder_layers": 5_000}},
    {"hidden_size": 1 << 40},
    {"text_config": {"vocab_size": 1 << 31}},
    {"num_labels": 1 << 20},
    {"x": {"y": [{"z": 1 << 30}]}},
]


@pytest.mark.parametrize("sizes", SIZES)
def test_numbers_that_no_network_has_are_refused(sizes: dict[str, Any], folder: Path) -> None:
    write(folder / "config.json", {"model_type": "bert", **sizes})
    assert "the largest value that its weights" in refusal(lambda: find_model(str(folder), extra="hf"))


PROCESSORS: list[dict[str, Any]] = [
    {"size": {"height": 1_000_000, "width": 1_000_000}},
    {"size": 1_000_000},
    {"size": {"shortest_edge": float("inf")}},
    {"sampling_rate": 1 << 30},
    {"feature_extractor": {"n_fft": 1 << 22}},
]


@pytest.mark.parametrize("content", PROCESSORS)
def test_inputs_larger_than_any_model_reads_are_refused(content: dict[str, Any], folder: Path) -> None:
    write(folder / "preprocessor_config.json", content)
    assert "the largest value that its weights" in refusal(lambda: find_model(str(folder), extra="hf"))


@pytest.mark.parametrize(
    "content",
    [
        {"size": {"height": "x", "width": 1}},
        {"size": {"shortest_edge": -1}},
        {"size": {"shortest_edge": 8}, "crop_pct": "x"},
    ],
)
def test_settings_of_another_type_are_errors_of_one_line(content: dict[str, Any], folder: Path) -> None:
    write(folder / "preprocessor_config.json", content)
    assert "cannot be used" in refusal(lambda: load_visual_encoder(f"hf:{folder}"))
    write(folder / "preprocessor_config.json", {"sampling_rate": 0})
    assert "its sampling rate is 0 Hz" in refusal(lambda: plan_of(folder))


def shown(load: Callable[[str], object], name: str, limit: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the error if no more than the given number of modules of a kind may be built."""
    built: list[int] = []
    make = nn.Linear.__init__

    def counted(self: nn.Linear, *args: Any, **kwargs: Any) -> None:
        built.append(1)
        assert len(built) < limit, "built on and on"
        make(self, *args, **kwargs)

    monkeypatch.setattr(nn.Linear, "__init__", counted)
    return refusal(lambda: load(f"{name}:{folder}"))


@pytest.mark.parametrize("name", ["hf", "st"])
@pytest.mark.parametrize(
    "change", [{"num_hidden_layers": 1000}, {"intermediate_size": 1 << 22}, {"vocab_size": 1 << 22}]
)
def test_a_text_network_ends_where_its_weights_end(
    name: str, change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_transformers.bert(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    write(folder / "config.json", {**config, **change})
    monkeypatch.setattr("trichord.features.network_size.FREE_TENSORS", 100)
    assert "far more" in shown(load_text_encoder, name, 600, folder, monkeypatch)


def test_an_audio_network_ends_where_its_weights_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_transformers.ast(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    write(folder / "config.json", {**config, "num_hidden_layers": 1000})
    monkeypatch.setattr("trichord.features.network_size.FREE_TENSORS", 100)
    assert "far more" in shown(load_audio_encoder, "hf", 600, folder, monkeypatch)


def test_sizes_of_networks_are_counted(folder: Path) -> None:
    weights = weight_files(folder)
    assert WeightsSize.of(weights) == WeightsSize(20, 320)
    for build in (
        lambda: nn.ModuleList(nn.Identity() for _ in range(FREE_MODULES + 321)),
        lambda: nn.ParameterList(nn.Parameter(torch.zeros(0)) for _ in range(FREE_TENSORS + 81)),
        lambda: nn.Embedding(FREE_NUMBERS + 641, 1, device="meta"),
        lambda: nn.Module().register_buffer("x", torch.zeros(1 << 29, dtype=torch.bool, device="meta")),
    ):
        with pytest.raises(TrichordError, match="far more"), bounded_by(weights, folder):
            build()
        build()
    with loading(folder):
        nn.Sequential(*(nn.Linear(4, 4) for _ in range(20)))


def test_a_header_that_claims_more_than_the_file_counts_as_the_file(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 60, 1 << 60], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert WeightsSize.of([path]) == WeightsSize(1, path.stat().st_size)
    path.write_bytes((1 << 60).to_bytes(8, "little") + b"{}")
    assert "is not a complete safetensors file" in refusal(lambda: WeightsSize.of([path]))
