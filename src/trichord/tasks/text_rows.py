"""Texts that no store has, such as steps and names of classes, as a model of text embeddings reads them.

The encoder that made the store's text embeddings is loaded when a benchmark needs it: `encoders.json` of the store names it,
and `Options.text_encoder` says where it is if it lies elsewhere, or nothing is recorded. One that would give other embeddings
than the store's is refused. P texts, D joint width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trichord.data.reader import EMBEDDING_STREAMS
from trichord.errors import TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.features.encoders import recorded_name, same_features
from trichord.features.text import TextModel, load_text_encoder
from trichord.store.encoders import read_encoders
from trichord.tasks.classification import PROMPTS_PER_BATCH, embed_prompts, found_prompts
from trichord.tasks.protocol import Options
from trichord.tasks.subject import Subject

STREAM = EMBEDDING_STREAMS["text"]


def prompts_from_clips(subject: Subject, options: Options) -> bool:
    """Whether prompts are looked up among the texts of clips: of a file, and of a store whose encoder nobody names."""
    if subject.model is None or subject.store is None or subject.settings is None:
        return True
    named = bool(options.text_encoder) or STREAM in read_encoders(subject.store.folder)
    return subject.settings.text == "embeddings" and not named


def prompt_rows(
    subject: Subject, found: Embedded, prompts: Sequence[str], options: Options
) -> tuple[np.ndarray, dict[str, list[str]]]:
    """Embeddings (P, D) of prompts in the subject's joint space, NaN where there is none; and by prompt the words that have no
    vector."""
    if prompts_from_clips(subject, options):
        return found_prompts(found, prompts), {}
    assert subject.model is not None and subject.store is not None and subject.settings is not None
    if subject.settings.text == "words":
        return embed_prompts(subject.model, subject.store, prompts, subject.settings.max_words)
    return embed_texts(subject, prompts, "class names", options.text_encoder), {}


def embed_texts(subject: Subject, texts: Sequence[str], what: str, name: str = "") -> np.ndarray:
    """Embeddings (P, D) float32 of texts by a model that reads text embeddings, each text as a caption of its own.

    Args:
        subject: A model on a store, with `settings.text` embeddings.
        texts: P of them.
        what: They are, for messages.
        name: Of the encoder as `trichord extract --text` takes it; '' takes what the store recorded.

    Raises TrichordError when the encoder is not known, not here, or another one.
    """
    import torch

    model = subject.model
    assert model is not None
    device = next(model.parameters()).device
    encoder = _encoder(subject, what, name, str(device))
    rows = np.empty((len(texts), int(model.arguments["embed_dim"])), np.float32)
    model.eval()
    with torch.inference_mode():
        for begin in range(0, len(texts), PROMPTS_PER_BATCH):
            part = encoder.encode(texts[begin : begin + PROMPTS_PER_BATCH]).astype(np.float32)
            text = torch.from_numpy(part)[:, None].to(device)
            mask = torch.ones(text.shape[:2], dtype=torch.bool, device=device)
            made = model.embed(text=text, text_mask=mask)["text"]
            rows[begin : begin + PROMPTS_PER_BATCH] = made.float().cpu().numpy()
    return rows


def _encoder(subject: Subject, what: str, name: str, device: str) -> TextModel:
    store, model = subject.store, subject.model
    assert store is not None and model is not None
    recorded = read_encoders(store.folder).get(STREAM, {})
    chosen = name or recorded_name(recorded, STREAM)
    if not chosen:
        raise TrichordError(
            f"{store.path}: does not say what made its text embeddings, and {what} need some; name the encoder with "
            "--text_encoder, e.g. st:all-minilm-l6-v2"
        )
    try:
        encoder = load_text_encoder(chosen, device)
    except TrichordError as error:
        raise TrichordError(
            f"{what} need the encoder of the text embeddings, {chosen}, which cannot be loaded: {error} "
            "(--text_encoder hf:FOLDER or st:FOLDER tells where it is)"
        ) from None
    if recorded and not same_features(recorded, encoder.fingerprint):
        raise TrichordError(
            f"{store.path}: its text embeddings were made by {recorded['name']} ({recorded['digest']}), "
            f"{encoder.fingerprint.name} here gives others ({encoder.fingerprint.digest}); use the same encoder and weights"
        )
    width = int(model.arguments["word_dim"])
    if encoder.dim != width:
        raise TrichordError(
            f"{subject.name}: reads text embeddings of width {width}, {chosen} gives {encoder.dim}; name the encoder that it "
            "was trained behind with --text_encoder"
        )
    return encoder
