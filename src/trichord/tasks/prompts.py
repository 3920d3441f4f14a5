"""Texts that no store has, such as steps and names of classes, in the joint space of a model.

A model of words reads them by the word vectors of the store. For a model of text embeddings, the encoder that made the store's
text embeddings is loaded: `encoders.json` of the store names it, and `Options.text_encoder` says where it is if it lies
elsewhere, or if nothing is recorded. An encoder that would give other embeddings than the store's is refused. Of embeddings from
a file, texts are looked up among the captions.

P texts, D joint width. The name of a class becomes words by `captions.class_text`; a prompt is a template with the words in
place of `{}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from trichord.captions import class_text, tokenize
from trichord.data.reader import EMBEDDING_STREAMS
from trichord.errors import TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.features.encoders import recorded_name, same_features
from trichord.features.text import TextModel, load_text_encoder
from trichord.store.encoders import read_encoders
from trichord.store.words import default_word_vectors
from trichord.tasks.protocol import Options
from trichord.tasks.subject import Subject

if TYPE_CHECKING:
    from trichord.nn import MCN
    from trichord.store import Store

STREAM = EMBEDDING_STREAMS["text"]
PROMPTS_PER_BATCH = 256


def prompts_of(name: str, templates: Sequence[str] = ()) -> list[str]:
    """Return the texts that stand for a class. Raises TrichordError for a template without `{}`."""
    if odd := [template for template in templates if "{}" not in template]:
        raise TrichordError(
            f"template '{odd[0]}' has no place for the class; write {{}} there, as in 'a video of {{}}'"
        )
    return [template.replace("{}", class_text(name)) for template in templates or ("{}",)]


def prompts_from_clips(subject: Subject, options: Options) -> bool:
    """Whether prompts are looked up among the texts of clips: of a file, and of a store whose encoder nobody names."""
    if subject.model is None or subject.store is None or subject.settings is None:
        return True
    named = bool(options.text_encoder) or STREAM in read_encoders(subject.store.folder)
    return subject.settings.text == "embeddings" and not named


def prompt_rows(
    subject: Subject, found: Embedded, prompts: Sequence[str], options: Options
) -> tuple[np.ndarray, dict[str, list[str]]]:
    """Return the embeddings (P, D) of prompts in the subject's joint space, NaN where there is none, and by prompt the words
    without a vector."""
    if prompts_from_clips(subject, options):
        return found_prompts(found, prompts), {}
    assert subject.model is not None and subject.store is not None and subject.settings is not None
    if subject.settings.text == "words":
        return embed_prompts(subject.model, subject.store, prompts, subject.settings.max_words)
    return embed_texts(subject, prompts, "class names", options.text_encoder), {}


@torch.no_grad()
def embed_prompts(
    model: MCN, store: Store, prompts: Sequence[str], max_words: int
) -> tuple[np.ndarray, dict[str, list[str]]]:
    """Return the embeddings (P, D) of texts by a model that reads words, and by text the words without a vector.

    Vectors are the store's; of words that it lacks the default table's, if the store was made with that. A text without any
    known word has a row of NaN.
    """
    if not store.words:
        raise TrichordError(f"{store.path}: has no word vectors, which class names need; import it with --words")
    cased = (lambda word: word.lower()) if store.lowercase else (lambda word: word)
    texts = [[cased(word) for word in tokenize(prompt, store.word_splitting)] for prompt in prompts]
    place = {word: row for row, word in enumerate(store.words) if word}
    vectors = {word: store.word_vectors[place[word]] for words in texts for word in words if word in place}
    if lacking := {word for words in texts for word in words} - set(vectors):
        more = default_word_vectors(lacking)
        if more.source == store.word_source:
            vectors |= dict(zip(more.words, more.vectors, strict=True))
    known = [[word for word in words if word in vectors][:max_words] for words in texts]
    unknown = {
        prompt: lost
        for prompt, words in zip(prompts, texts, strict=True)
        if (lost := [w for w in words if w not in vectors])
    }
    device = next(model.parameters()).device
    rows = np.full((len(prompts), int(model.arguments["embed_dim"])), np.nan, np.float32)
    some = [p for p, words in enumerate(known) if words]
    model.eval()
    for begin in range(0, len(some), PROMPTS_PER_BATCH):
        part = some[begin : begin + PROMPTS_PER_BATCH]
        text = np.zeros((len(part), max_words, store.word_dim), np.float32)
        mask = np.zeros((len(part), max_words), bool)
        for row, p in enumerate(part):
            text[row, : len(known[p])] = [vectors[word] for word in known[p]]
            mask[row, : len(known[p])] = True
        made = model.embed(text=torch.from_numpy(text).to(device), text_mask=torch.from_numpy(mask).to(device))
        rows[part] = made["text"].float().cpu().numpy()
    return rows, unknown


def found_prompts(found: Embedded, prompts: Sequence[str]) -> np.ndarray:
    """Return the embeddings (P, D) of those texts that are among the captions; NaN for others. Of equal captions the first counts;
    case does not matter."""
    if found.captions is None or "text" not in found.embeddings:
        raise TrichordError(
            f"{found.source}: has no texts with captions to take class names from; add a text for each class"
        )
    at: dict[str, int] = {}
    for row in np.flatnonzero(found.valid["text"]).tolist():
        at.setdefault(_plain(found.captions[row]), row)
        at.setdefault(class_text(found.captions[row]), row)
    rows = np.full((len(prompts), found.embeddings["text"].shape[1]), np.nan, np.float32)
    for p, prompt in enumerate(prompts):
        if (key := _plain(prompt)) in at:
            rows[p] = found.embeddings["text"][at[key]]
    return rows


def _plain(text: str) -> str:
    return " ".join(str(text).lower().split())


def embed_texts(subject: Subject, texts: Sequence[str], what: str, name: str = "") -> np.ndarray:
    """Return the embeddings (P, D) float32 of texts by a model that reads text embeddings, each text as a caption of its own.

    Args:
        subject: A model on a store, with `settings.text` embeddings.
        texts: P of them.
        what: They are, for messages.
        name: Of the encoder as `trichord extract --text` takes it; '' takes what the store recorded.

    Raises TrichordError when the encoder is not known, not here, or another one.
    """
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
