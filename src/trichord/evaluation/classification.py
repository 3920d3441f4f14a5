"""Zero-shot classification: each clip is assigned the class whose name, embedded as text, scores highest.

C classes, P prompts, D joint width. `captions.class_text` splits the name of a class into words; a prompt is a template whose `{}`
is replaced by these words. A class with several prompts is represented by the mean of their embeddings. If scores are cosines
(`mean_normalized`), it is the normalized mean of the normalized embeddings (Radford et al. 2021, CLIP). As in retrieval, scores are
dot products with the clip. Under `sum`, classes with a longer embedding are therefore chosen more often; the published figures
were computed in this way (`train_tri_cos_mil.py` of MCN takes the argmax of the products).
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
    """Return the prompts of a class.

    Args:
        name: Name of the class.
        templates: Templates that contain `{}`; empty for the name alone.

    Raises:
        TrichordError: A template does not contain `{}`.
    """
    if invalid := [template for template in templates if "{}" not in template]:
        raise TrichordError(
            f"template '{invalid[0]}' has no placeholder for the class; write {{}} in its place, as in 'a video of {{}}'"
        )
    return [template.replace("{}", class_text(name)) for template in templates or ("{}",)]


@torch.no_grad()
def embed_prompts(
    model: MCN, store: Store, prompts: Sequence[str], max_words: int
) -> tuple[np.ndarray, dict[str, list[str]]]:
    """Embed prompts with a model that reads words.

    Word vectors are taken from the store, and for words that the store lacks from the default table if the store was built from it.

    Args:
        model: The model.
        store: Store with the word vectors that the model was trained with.
        prompts: P texts.
        max_words: Largest number of words of a prompt; further words are cut.

    Returns:
        The embeddings (P, D), with a row of NaN for a prompt without any known word; and for each prompt with unknown words the
        list of these words.

    Raises:
        TrichordError: The store has no word vectors.
    """
    if not store.words:
        raise TrichordError(
            f"{store.path}: the store has no word vectors, which are needed to embed class names; import it with --words"
        )
    normalize_case = (lambda word: word.lower()) if store.lowercase else (lambda word: word)
    texts = [[normalize_case(word) for word in tokenize(prompt, store.word_splitting)] for prompt in prompts]
    row_of_word = {word: row for row, word in enumerate(store.words) if word}
    vectors = {word: store.word_vectors[row_of_word[word]] for words in texts for word in words if word in row_of_word}
    if missing_words := {word for words in texts for word in words} - set(vectors):
        default = default_word_vectors(missing_words)
        if default.source == store.word_source:
            vectors |= dict(zip(default.words, default.vectors, strict=True))
    known = [[word for word in words if word in vectors][:max_words] for words in texts]
    unknown = {
        prompt: unknown_words
        for prompt, words in zip(prompts, texts, strict=True)
        if (unknown_words := [w for w in words if w not in vectors])
    }
    device = next(model.parameters()).device
    rows = np.full((len(prompts), int(model.arguments["embed_dim"])), np.nan, np.float32)
    embeddable = [p for p, words in enumerate(known) if words]
    model.eval()
    for begin in range(0, len(embeddable), PROMPTS_PER_BATCH):
        batch = embeddable[begin : begin + PROMPTS_PER_BATCH]
        text = np.zeros((len(batch), max_words, store.word_dim), np.float32)
        mask = np.zeros((len(batch), max_words), bool)
        for row, p in enumerate(batch):
            text[row, : len(known[p])] = [vectors[word] for word in known[p]]
            mask[row, : len(known[p])] = True
        embeddings = model.embed(text=torch.from_numpy(text).to(device), text_mask=torch.from_numpy(mask).to(device))
        rows[batch] = embeddings["text"].float().cpu().numpy()
    return rows, unknown


def found_prompts(embedded: Embedded, prompts: Sequence[str]) -> np.ndarray:
    """Return the embeddings (P, D) of prompts that occur among the captions of `embedded`, and NaN for the others.

    Case is ignored. Of several equal captions the first counts.

    Raises:
        TrichordError: There are no texts with captions.
    """
    if embedded.captions is None or "text" not in embedded.embeddings:
        raise TrichordError(
            f"{embedded.source}: there are no texts with captions from which class names could be taken; add a text for each class"
        )
    row_of_text: dict[str, int] = {}
    for row in np.flatnonzero(embedded.valid["text"]).tolist():
        row_of_text.setdefault(_plain(embedded.captions[row]), row)
        row_of_text.setdefault(class_text(embedded.captions[row]), row)
    rows = np.full((len(prompts), embedded.embeddings["text"].shape[1]), np.nan, np.float32)
    for p, prompt in enumerate(prompts):
        if (key := _plain(prompt)) in row_of_text:
            rows[p] = embedded.embeddings["text"][row_of_text[key]]
    return rows


def _plain(text: str) -> str:
    return " ".join(str(text).lower().split())


def class_embeddings(prompts: np.ndarray, owner: np.ndarray, num_classes: int, cosine: bool) -> np.ndarray:
    """Return the mean embedding (C, D) of the prompts of each class, and NaN for a class without a finite prompt.

    Args:
        prompts: (P, D) embeddings of the prompts.
        owner: (P,) class of each prompt.
        num_classes: Number C of classes.
        cosine: Whether to normalize the embeddings before and after averaging.
    """
    rows = prompts.astype(np.float64)
    finite = np.isfinite(rows).all(axis=1)
    if cosine:
        rows = _unit(rows)
    means = np.full((num_classes, prompts.shape[1]), np.nan)
    for c in range(num_classes):
        own_prompts = np.flatnonzero((owner == c) & finite)
        if len(own_prompts):
            means[c] = rows[own_prompts].mean(axis=0)
    return (_unit(means) if cosine else means).astype(np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1)
