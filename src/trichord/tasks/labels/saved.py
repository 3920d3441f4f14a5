"""Clips with labels in the form of a file of embeddings, with labels, folds and the prompts of classes as texts."""

from __future__ import annotations

import numpy as np

from trichord.evaluation.embedded import Embedded
from trichord.tasks.labels.clips import Labelled, labelled, usable
from trichord.tasks.prompts import prompt_rows, prompts_from_clips, prompts_of
from trichord.tasks.protocol import Options, Protocol
from trichord.tasks.subject import Subject


def labelled_clips(subject: Subject, protocol: Protocol, options: Options) -> Embedded:
    """Return the clips that a protocol of labels scores.

    Args:
        subject: Model or embeddings.
        protocol: Protocol.
        options: Options of the user.
    """
    have = usable(subject)
    of_classes = protocol.kind == "classification"
    from_clips = prompts_from_clips(subject, options)
    needed = (*have, "text") if of_classes and from_clips else have
    data = labelled(subject, options, needed, train=protocol.kind == "probe")
    if of_classes and not from_clips:
        return _with_prompts(subject, data, options)
    return data.embedded.but(labels=data.embedded.labels | data.columns, classes=data.known_classes())


def _with_prompts(subject: Subject, data: Labelled, options: Options) -> Embedded:
    """Return the clips with the prompts of the classes as texts. Each prompt is assigned to the first clip of its class."""
    rows: list[np.ndarray] = []
    said: list[str] = []
    clip: list[int] = []
    for label, names in data.classes.items():
        texts = [prompts_of(name, options.templates) for name in names]
        prompts = [text for prompts_of_class in texts for text in prompts_of_class]
        rows.append(
            prompt_rows(subject, data.embedded, prompts, options)[0]
        )  # all at once, as in the benchmark, for bit-identical embeddings
        said += prompts
        for name, prompts_of_class in zip(names, texts, strict=True):
            mine = np.flatnonzero(data.labels[label] == name)
            clip += [int(mine[0]) if len(mine) else 0] * len(prompts_of_class)
    text = np.concatenate(rows)
    return data.embedded.but(
        embeddings={m: v for m, v in data.embedded.embeddings.items() if m != "text"} | {"text": text},
        valid={m: v for m, v in data.embedded.valid.items() if m != "text"} | {"text": np.isfinite(text).all(axis=1)},
        text_clip=np.array(clip),
        captions=said,
        labels=data.embedded.labels | data.columns,
        classes=data.known_classes(),
    )
