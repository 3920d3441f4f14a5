"""Zero-shot classification: the class whose name, as text in the joint space, scores highest with the clip.

C classes, P prompts, D joint width. A class's name becomes words by `captions.class_text`; a prompt is a template with the
words in place of `{}`. A class with several prompts has the mean of their embeddings; where scores are cosines
(`mean_normalized`), the mean of unit vectors, of length one (Radford et al. 2021, CLIP). Scores are dot products with the
clip, as in retrieval: under `sum`, a class whose embedding is longer is chosen more often, and the published figures were
made so (MCN's `train_tri_cos_mil.py`: argmax of the products).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from trichord.captions import class_text, tokenize
from trichord.errors import TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.store.words import default_word_vectors

if TYPE_CHECKING:
    from trichord.nn import MCN
    from trichord.store import Store

PROMPTS_PER_BATCH = 256


def prompts_of(name: str, templates: Sequence[str] = ()) -> list[str]:
    """The texts that stand for a class. Raises TrichordError for a template without `{}`."""
    if odd := [template for template in templates if "{}" not in template]:
        raise TrichordError(
            f"template '{odd[0]}' has no place for the class; write {{}} there, as in 'a video of {{}}'"
        )
    return [template.replace("{}", class_text(name)) for template in templates or ("{}",)]


@torch.no_grad()
def embed_prompts(
    model: MCN, store: Store, prompts: Sequence[str], max_words: int
) -> tuple[np.ndarray, dict[str, list[str]]]:
    """Embeddings (P, D) of texts by a model that reads words; and by text the words that have no vector.

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
    """Embeddings (P, D) of texts that stand among the captions; NaN where one does not. Copies count once, case does not."""
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


def class_embeddings(prompts: np.ndarray, owner: np.ndarray, num_classes: int, cosine: bool) -> np.ndarray:
    """(C, D) the mean over each class's prompts (P, D), of unit length where `cosine`; NaN where none is finite.

    owner: (P,) the class of each prompt.
    """
    rows = prompts.astype(np.float64)
    finite = np.isfinite(rows).all(axis=1)
    if cosine:
        rows = _unit(rows)
    out = np.full((num_classes, prompts.shape[1]), np.nan)
    for c in range(num_classes):
        mine = np.flatnonzero((owner == c) & finite)
        if len(mine):
            out[c] = rows[mine].mean(axis=0)
    return (_unit(out) if cosine else out).astype(np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1)
