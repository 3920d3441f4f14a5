"""A model of ours as an encoder of the package `mteb` (pip install 'trichord[mteb]'), for its tasks over text, video and audio:

    import mteb
    from trichord.embedder.mteb import TrichordEncoder
    mteb.evaluate(TrichordEncoder("my_model"), mteb.get_task("YouCook2T2VARetrieval"))

MTEB decodes media with torchcodec and resamples them for each model. Here files stay files: they are read by the decoder and the
feature encoders that made the training features, so that a figure of MTEB is the one of `trichord evaluate` for the same clips.
Where they differ by definition:

| | MTEB | `trichord evaluate` |
|---|---|---|
| equal scores | broken by the sort | counted at their expected value |
| several truths | recall@k is the share of them that is found; hit_rate@k asks for one | R@k asks for one |
| a clip lacks a modality | has to be embedded all the same: see `missing` | left out, or an error (`--missing`) |
| instructions and prompts | not read: the model knows none | none |

Sides of several modalities (`va2t`) are joined by a named rule, and scores are dot products of what `encode` gives, both as in
`tasks.retrieval.measure`.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from trichord.embedder import Embedder
from trichord.embedder.folder import CONFIG, Parts
from trichord.embedder.mteb_items import Item, sound_of, video_of, with_files
from trichord.errors import TrichordError, one_line
from trichord.tasks.retrieval.measure import FUSIONS, fuse
from trichord.training.models import PUBLISHED_SUFFIXES

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models import ModelMeta
    from mteb.types import PromptType
    from torch.utils.data import DataLoader

Missing = Literal["error", "zero"]
logger = logging.getLogger(__name__)


class TrichordEncoder:
    """Serves as mteb's `EncoderProtocol`.

    Args:
        model: An `Embedder`, or what one is made of: a folder that `trichord export-model` wrote, OWNER/NAME of the hub, the folder
            of a run, study or stage, or a published checkpoint (.pth).
        revision: Of a model of the hub.
        device: Where it computes, if it is loaded here.
        name: OWNER/NAME under which mteb files its results; None: that of the hub, or `trichord/` and the name of the folder.
        fusion: How the modalities of one side are joined: `sum`, `mean_normalized`, or `auto`: as the model was trained.
        missing: What cannot be embedded (no sound, not one known word, a broken file) is an `error`, or is `zero`: its modality
            adds nothing to its side, and alone it scores 0 with everything. How many were is in `num_missing` and is logged.
        frame_rate_hz: Of videos that a task gives as frames without their rate.
        options: Further ones of `Embedder`'s constructors, if it is loaded here: `words`, `encoders`, `weights`, `store`, ...

    Attributes:
        embedder: The model.
        num_missing: By modality, what counted as zeros so far.

    Raises TrichordError, one line, when mteb is not installed, the model is not there, or a setting is not known.
    """

    def __init__(
        self,
        model: Embedder | str | Path,
        revision: str | None = None,
        *,
        device: str | None = None,
        name: str | None = None,
        fusion: str = "auto",
        missing: Missing = "error",
        frame_rate_hz: float | None = None,
        **options: Any,
    ) -> None:
        _require_mteb()
        if missing not in ("error", "zero"):
            raise TrichordError(f"unknown value '{missing}' of missing; expected error or zero")
        if fusion not in ("auto", *FUSIONS):
            raise TrichordError(f"unknown fusion rule '{fusion}'; expected auto, {' or '.join(FUSIONS)}")
        if isinstance(model, Embedder):
            if given := [k for k, v in {"revision": revision, "device": device, **options}.items() if v is not None]:
                raise TrichordError(f"{', '.join(given)} has no effect on a model that is loaded already; leave it out")
            self.embedder = model
        else:
            self.embedder = _load(model, revision, {**options, "device": device or "cpu"})
        by_training = "mean_normalized" if self.embedder.parts.scoring.cosine else "sum"
        self.fusion = by_training if fusion == "auto" else fusion
        self.missing, self.frame_rate_hz = missing, frame_rate_hz
        self.num_missing = dict.fromkeys(self.embedder.modalities, 0)
        self.mteb_model_meta = self._meta(name or _name_of(model, self.embedder.parts))

    def encode(
        self,
        inputs: DataLoader[Any],
        *,
        task_metadata: TaskMetadata,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Embeddings (N, D) float32 of the inputs, those of several modalities joined.

        Args:
            inputs: Batches with the columns text, video and audio, as far as the task has them; those that the model was not
                trained on are not read. What a video or a sound may be: see `mteb_items`.
            task_metadata, hf_split, hf_subset, prompt_type, kwargs: As mteb gives them; not used, but for the task's name.

        Raises TrichordError when the batches hold nothing that the model reads, or an item cannot be embedded.
        """
        found: dict[str, list[np.ndarray]] = {}
        lacking: dict[str, list[TrichordError]] = {}
        for batch in with_files(inputs):
            columns = [m for m in self.embedder.modalities if m in batch]
            if not columns:
                raise TrichordError(
                    f"{task_metadata.name}: its inputs are {', '.join(map(str, batch))}, the model reads "
                    f"{', '.join(self.embedder.modalities)}; choose another task"
                )
            for modality in columns:
                rows, errors = self._rows(modality, list(batch[modality]), task_metadata.name)
                found.setdefault(modality, []).append(rows)
                lacking.setdefault(modality, []).extend(errors)
        if not found:
            return np.empty((0, self.embedder.dim), np.float32)
        whole = {modality: np.concatenate(rows) for modality, rows in found.items()}
        for modality, errors in lacking.items():
            self._count(modality, errors, len(whole[modality]), task_metadata.name)
        return fuse(list(whole.values()), self.fusion)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Scores (N, M) of what `encode` gave: dot products, which under `mean_normalized` are means of cosines."""
        from mteb.similarity_functions import dot_score

        return dot_score(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Scores (N,) of pairs."""
        from mteb.similarity_functions import pairwise_dot_score

        return pairwise_dot_score(embeddings1, embeddings2)

    # ---- one batch

    def _rows(self, modality: str, values: list[Any], task: str) -> tuple[np.ndarray, list[TrichordError]]:
        """Embeddings (B, D), zeros where there is none, and why not."""
        encode = {"text": self._texts, "video": self._videos, "audio": self._sounds}[modality]
        try:
            return encode(values), []
        except TrichordError as error:
            if self.missing == "error":
                raise TrichordError(f"{task}: {error}; missing='zero' counts such items as zeros") from None
        rows, errors = np.zeros((len(values), self.embedder.dim), np.float32), []
        for row, value in enumerate(values):
            try:
                rows[row] = encode([value])[0]
            except TrichordError as error:
                errors.append(error)
        return rows, errors

    def _count(self, modality: str, errors: list[TrichordError], num: int, task: str) -> None:
        if not errors:
            return
        if len(errors) == num:
            raise TrichordError(f"{task}: not one {modality} of {num:,} can be embedded: {errors[0]}")
        self.num_missing[modality] += len(errors)
        logger.warning("%s: %d of %d of %s count as zeros, the first: %s", task, len(errors), num, modality, errors[0])

    def _texts(self, values: list[Any]) -> np.ndarray:
        return self.embedder.encode_text([tuple(value) if isinstance(value, list) else value for value in values])

    def _videos(self, values: list[Any]) -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            items = [video_of(value, self.frame_rate_hz, Path(folder)) for value in values]
            return self._encoded(items, self.embedder.encode_video)

    def _sounds(self, values: list[Any]) -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            return self._encoded([sound_of(value, Path(folder)) for value in values], self.embedder.encode_audio)

    def _encoded(self, items: list[Item], encode: Callable[..., np.ndarray]) -> np.ndarray:
        """Embeddings (B, D) of items, those of one rate in one call."""
        rows = np.zeros((len(items), self.embedder.dim), np.float32)
        for rate_hz in {item.rate_hz for item in items}:
            index = [row for row, item in enumerate(items) if item.rate_hz == rate_hz]
            some = [items[row] for row in index]
            starts, ends = [item.start_s for item in some], [item.end_s for item in some]
            rows[index] = encode([item.value for item in some], rate_hz=rate_hz, start_s=starts, end_s=ends)
        return rows

    # ---- what mteb files it under

    def _meta(self, name: str) -> ModelMeta:
        """What is known of the model; what is not is None. So are its parameters: those of the frozen feature encoders count too,
        and are not known before they are loaded; and its loader: the name alone does not tell where the model lies."""
        from mteb.models import ModelMeta
        from mteb.models.model_meta import ScoringFunction

        scoring = self.embedder.parts.scoring
        return ModelMeta(
            loader=None, name=name, revision=_digest(self.embedder), release_date=None, languages=None,
            n_parameters=None, memory_usage_mb=None, max_tokens=scoring.max_words, embed_dim=self.embedder.dim,
            license=None, open_weights=None, public_training_code=None, public_training_data=None,
            framework=["PyTorch"], similarity_fn_name=ScoringFunction.DOT_PRODUCT, use_instructions=False,
            training_datasets=None, modalities=cast(Any, list(self.embedder.modalities)),
            experiment_kwargs={"fusion": self.fusion, "missing": self.missing},
        )  # fmt: skip


def _require_mteb() -> None:
    """Import mteb and, before it does, torchvision."""
    from trichord.features.torchvision_compat import import_torchvision

    try:
        import_torchvision()
        import mteb.models  # noqa: F401
    except ImportError as error:
        told = one_line(error)
        raise TrichordError(f"the MTEB adapter needs mteb ({told}); run: pip install 'trichord[mteb]'") from None


def _load(model: str | Path, revision: str | None, options: dict[str, Any]) -> Embedder:
    path = Path(model).expanduser()
    is_published = path.is_file() and path.suffix in PUBLISHED_SUFFIXES
    if not is_published and (not path.is_dir() or (path / CONFIG).is_file()):
        return Embedder.from_pretrained(model, revision=revision, **options)
    if revision is not None:
        raise TrichordError(f"{path}: is not of the hub, so revision '{revision}' has no effect; leave it out")
    return Embedder.from_published(path, **options) if is_published else Embedder.from_run(path, **options)


def _name_of(model: Embedder | str | Path, parts: Parts) -> str:
    if isinstance(model, Embedder):
        return f"trichord/{parts.origin.get('order') or 'model'}"
    path = Path(model).expanduser()
    return f"trichord/{path.resolve().name}" if path.exists() else str(model)


def _digest(embedder: Embedder) -> str:
    """Of the weights, the settings and the feature encoders: results of another model are never taken for its own."""
    parts, digest = embedder.parts, hashlib.sha256()
    for name, tensor in embedder.model.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    encoders = {stream: entry.get("digest", entry["name"]) for stream, entry in parts.encoders.items()}
    digest.update(repr((parts.scoring, sorted(encoders.items()))).encode())
    return digest.hexdigest()[:40]
