"""Embedding of texts that the store does not contain, such as steps and names of classes, in the joint space of a model.

A model that reads words uses the word vectors of the store. For a model that reads text embeddings, the encoder of the text
embeddings of the store is loaded. Its name is recorded in `encoders.json` of the store. `Options.text_encoder` gives its location
if it has moved or is not recorded. An encoder that computes other embeddings than those of the store is an error. For embeddings
from a file, texts are looked up among the captions.

Notation: P texts, D size of the joint space. `captions.class_text` converts the name of a class to words. A prompt is a template
with these words in place of `{}`.
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
    """Return the prompts of a class.

    Args:
        name: Name of the class.
        templates: Templates that contain `{}`. If empty, the prompt is the name alone.

    Raises:
        TrichordError: A template does not contain `{}`.
    """
    if invalid := [template for template in templates if "{}" not in template]:
        raise TrichordError(
            f"template '{invalid[0]}' has no placeholder for the class; write {{}} in its place, as in 'a video of {{}}'"
        )
    return [template.replace("{}", class_text(name)) for template in templates or ("{}",)]


def prompts_from_clips(subject: Subject, options: Options) -> bool:
    """Return whether prompts are looked up among the texts of clips.

    This is the case for embeddings from a file, and for a store with text embeddings whose encoder is unknown.
    """
    if subject.model is None or subject.store is None or subject.settings is None:
        return True
    named = bool(options.text_encoder) or STREAM in read_encoders(subject.store.folder)
    return subject.settings.text == "embeddings" and not named


def prompt_rows(
    subject: Subject, embedded: Embedded, prompts: Sequence[str], options: Options
) -> tuple[np.ndarray, dict[str, list[str]]]:
    """Embed prompts in the joint space of a subject.

    Args:
        subject: Model or embeddings.
        embedded: Clips whose texts are searched if prompts cannot be embedded.
        prompts: P texts.
        options: Options of the user.

    Returns:
        Embeddings (P, D), with a row of NaN for a prompt without an embedding, and the unknown words of each prompt that has
        some.
    """
    if prompts_from_clips(subject, options):
        return found_prompts(embedded, prompts), {}
    assert subject.model is not None and subject.store is not None and subject.settings is not None
    if subject.settings.text == "words":
        return embed_prompts(subject.model, subject.store, prompts, subject.settings.max_words)
    return embed_texts(subject, prompts, "class names", options.text_encoder), {}


@torch.no_grad()
def embed_prompts(
    model: MCN, store: Store, prompts: Sequence[str], max_words: int
) -> tuple[np.ndarray, dict[str, list[str]]]:
    """Embed prompts with a model that reads words.

    Word vectors are taken from the store, and for words that the store lacks from the default table if the store was built from it.

    Args:
        model: Network.
        store: Store with the word vectors that the model was trained with.
        prompts: P texts.
        max_words: Largest number of words of a prompt. Further words are ignored.

    Returns:
        Embeddings (P, D), with a row of NaN for a prompt without any known word, and the unknown words of each prompt that has
        some.

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
    """Return the embeddings (P, D) of prompts that are captions of `embedded`, and rows of NaN for the others.

    Case is ignored. The first of several equal captions is used.

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


def embed_texts(subject: Subject, texts: Sequence[str], what: str, name: str = "") -> np.ndarray:
    """Embed texts with a model that reads text embeddings. Each text is treated as a caption.

    Args:
        subject: Model on a store. `settings.text` is `embeddings`.
        texts: P texts.
        what: Description of the texts, for messages.
        name: Encoder, as given to `trichord extract --text`. '' uses the encoder that is recorded in the store.

    Returns:
        Embeddings (P, D), float32.

    Raises:
        TrichordError: The encoder is unknown, cannot be loaded, or computes other embeddings than those of the store.
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
            f"{store.path}: does not record the encoder of its text embeddings, which is needed for {what}; give it with "
            "--text_encoder, such as st:all-minilm-l6-v2"
        )
    try:
        encoder = load_text_encoder(chosen, device)
    except TrichordError as error:
        raise TrichordError(
            f"{what} need the encoder of the text embeddings, {chosen}, which cannot be loaded: {error} "
            "(give its location with --text_encoder hf:FOLDER or st:FOLDER)"
        ) from None
    if recorded and not same_features(recorded, encoder.fingerprint):
        raise TrichordError(
            f"{store.path}: its text embeddings were computed by {recorded['name']} ({recorded['digest']}), but "
            f"{encoder.fingerprint.name} computes others ({encoder.fingerprint.digest}); use the same encoder and weights"
        )
    width = int(model.arguments["word_dim"])
    if encoder.dim != width:
        raise TrichordError(
            f"{subject.name}: reads text embeddings of size {width}, but those of {chosen} have size {encoder.dim}; give the "
            "encoder of its training with --text_encoder"
        )
    return encoder
