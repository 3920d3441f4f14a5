"""Use a model as an encoder of the package `mteb` (pip install 'trichord[mteb]'), for tasks with text, video and audio.

    import mteb
    from trichord.embedder.mteb import TrichordEncoder
    mteb.evaluate(TrichordEncoder("my_model"), mteb.get_task("YouCook2T2VARetrieval"))

MTEB decodes media with torchcodec and resamples them for each model. This adapter passes files on as files, which are read by the
decoder and the feature encoders that computed the training features. A figure of MTEB therefore equals that of `trichord evaluate`
for the same clips, except where their definitions differ:

| | MTEB | `trichord evaluate` |
|---|---|---|
| equal scores | ordered by the sort | counted with their expected value |
| several truths | recall@k is the share of truths that are found; hit_rate@k requires one | R@k requires one |
| a clip lacks a modality | must be embedded nevertheless: see `missing` | excluded, or an error (`--missing`) |
| instructions and prompts | ignored, because the model does not use them | none |

Several modalities of one side (`va2t`) are fused by a named rule, and scores are dot products of the results of `encode`, both as
in `tasks.retrieval.measure`.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from trichord.embedder import Embedder
from trichord.embedder.folder import CONFIG, Parts
from trichord.embedder.mteb_items import Item, sound_of, video_of, with_files
from trichord.errors import TrichordError, one_line
from trichord.logs import get_logger
from trichord.tasks.retrieval.measure import FUSIONS, fuse
from trichord.training.models import PUBLISHED_SUFFIXES

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models import ModelMeta
    from mteb.types import PromptType
    from torch.utils.data import DataLoader

Missing = Literal["error", "zero"]
logger = get_logger(__name__)


class TrichordEncoder:
    """Implementation of the `EncoderProtocol` of mteb.

    Args:
        model: An `Embedder`, or the source of one: a folder that `trichord export-model` wrote, OWNER/NAME on the hub, the folder
            of a run, study or stage, or a published checkpoint (.pth).
        revision: Revision of a model on the hub.
        device: Device of a model that is loaded here.
        name: OWNER/NAME under which mteb saves results; None uses that of the hub, or `trichord/` and the name of the folder.
        fusion: Rule that fuses the modalities of one side: `sum`, `mean_normalized`, or `auto` for the rule used in training.
        missing: Treatment of inputs that cannot be embedded (no sound, no known word, a broken file): `error`, or `zero`, so that
            the modality adds nothing to its side and a single modality scores 0 with everything. Their number is in `num_missing`
            and is logged.
        frame_rate_hz: Frame rate of videos that a task gives as frames without a rate.
        **options: Other options of the constructors of `Embedder` for a model that is loaded here: `words`, `encoders`,
            `weights`, `store`, ...

    Attributes:
        embedder: The model.
        num_missing: Number of inputs of each modality that were counted as zeros so far.

    Raises:
        TrichordError: mteb is not installed, the model does not exist, or an option is unknown.

    Example:
        >>> encoder = TrichordEncoder("my_model")
        >>> encoder.embedder.dim, encoder.fusion
        (8, 'sum')
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
                raise TrichordError(f"{', '.join(given)} has no effect on a model that is already loaded; omit it")
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
        """Embed inputs, and fuse the embeddings of several modalities.

        Args:
            inputs: Batches with the columns text, video and audio, as far as the task has them; columns of modalities that the
                model was not trained on are ignored. `mteb_items` describes the items of a column.
            task_metadata: Description of the task, of which only the name is used.
            hf_split: Not used.
            hf_subset: Not used.
            prompt_type: Not used.
            **kwargs: Not used.

        Returns:
            Embeddings (N, D) float32.

        Raises:
            TrichordError: The model reads none of the columns, or an item cannot be embedded.

        Example:
            >>> from types import SimpleNamespace
            >>> from torch.utils.data import DataLoader
            >>> encoder, task = TrichordEncoder("my_model"), SimpleNamespace(name="Soups")
            >>> inputs = DataLoader([{"text": "stir the soup"}, {"text": "cut the bread"}], batch_size=2)
            >>> encoder.encode(inputs, task_metadata=task).shape
            (2, 8)
        """
        batches: dict[str, list[np.ndarray]] = {}
        errors_of: dict[str, list[TrichordError]] = {}
        for batch in with_files(inputs):
            columns = [m for m in self.embedder.modalities if m in batch]
            if not columns:
                raise TrichordError(
                    f"{task_metadata.name}: the inputs are {', '.join(map(str, batch))}, but the model reads "
                    f"{', '.join(self.embedder.modalities)}; choose another task"
                )
            for modality in columns:
                rows, errors = self._rows(modality, list(batch[modality]), task_metadata.name)
                batches.setdefault(modality, []).append(rows)
                errors_of.setdefault(modality, []).extend(errors)
        if not batches:
            return np.empty((0, self.embedder.dim), np.float32)
        embeddings = {modality: np.concatenate(rows) for modality, rows in batches.items()}
        for modality, errors in errors_of.items():
            self._count(modality, errors, len(embeddings[modality]), task_metadata.name)
        return fuse(list(embeddings.values()), self.fusion)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the scores (N, M) of results of `encode`: dot products, which are means of cosines under `mean_normalized`.

        Args:
            embeddings1: (N, D).
            embeddings2: (M, D).

        Example:
            >>> TrichordEncoder("my_model").similarity(np.eye(2), np.eye(2))
            tensor([[1., 0.],
                    [0., 1.]])
        """
        from mteb.similarity_functions import dot_score

        return dot_score(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the scores (N,) of pairs.

        Example:
            >>> TrichordEncoder("my_model").similarity_pairwise(np.eye(2), np.ones((2, 2)))
            tensor([1., 1.])
        """
        from mteb.similarity_functions import pairwise_dot_score

        return pairwise_dot_score(embeddings1, embeddings2)

    # ---- one batch

    def _rows(self, modality: str, values: list[Any], task: str) -> tuple[np.ndarray, list[TrichordError]]:
        """Return the embeddings (B, D), with zeros for missing ones, and the errors of the missing ones."""
        encode = {"text": self._texts, "video": self._videos, "audio": self._sounds}[modality]
        try:
            return encode(values), []
        except TrichordError as error:
            if self.missing == "error":
                raise TrichordError(f"{task}: {error}; pass missing='zero' to count such items as zeros") from None
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
            raise TrichordError(f"{task}: none of the {num:,} inputs of {modality} can be embedded: {errors[0]}")
        self.num_missing[modality] += len(errors)
        logger.warning(
            "%s: %d of %d inputs of %s are counted as zeros, the first: %s", task, len(errors), num, modality, errors[0]
        )

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
        """Return the embeddings (B, D) of items; items with the same rate are encoded in one call."""
        rows = np.zeros((len(items), self.embedder.dim), np.float32)
        for rate_hz in {item.rate_hz for item in items}:
            index = [row for row, item in enumerate(items) if item.rate_hz == rate_hz]
            items_of_rate = [items[row] for row in index]
            starts, ends = [item.start_s for item in items_of_rate], [item.end_s for item in items_of_rate]
            rows[index] = encode([item.value for item in items_of_rate], rate_hz=rate_hz, start_s=starts, end_s=ends)
        return rows

    # ---- description of the model for mteb

    def _meta(self, name: str) -> ModelMeta:
        """Return the description of the model; unknown fields are None.

        The number of parameters is unknown because it includes the frozen feature encoders, which may not be loaded yet. The
        loader is unknown because the name does not determine the location of the model.
        """
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
    """Import mteb, after importing torchvision."""
    from trichord.features.torchvision_compat import import_torchvision

    try:
        import_torchvision()
        import mteb.models  # noqa: F401
    except ImportError as error:
        reason = one_line(error)
        raise TrichordError(f"the MTEB adapter needs mteb ({reason}); run: pip install 'trichord[mteb]'") from None


def _load(model: str | Path, revision: str | None, options: dict[str, Any]) -> Embedder:
    path = Path(model).expanduser()
    is_published = path.is_file() and path.suffix in PUBLISHED_SUFFIXES
    if not is_published and (not path.is_dir() or (path / CONFIG).is_file()):
        return Embedder.from_pretrained(model, revision=revision, **options)
    if revision is not None:
        raise TrichordError(f"{path}: the model is not on the hub, so revision '{revision}' has no effect; omit it")
    return Embedder.from_published(path, **options) if is_published else Embedder.from_run(path, **options)


def _name_of(model: Embedder | str | Path, parts: Parts) -> str:
    if isinstance(model, Embedder):
        return f"trichord/{parts.origin.get('order') or 'model'}"
    path = Path(model).expanduser()
    return f"trichord/{path.resolve().name}" if path.exists() else str(model)


def _digest(embedder: Embedder) -> str:
    """Return a digest of weights, settings and feature encoders, so that results of different models are kept apart."""
    parts, digest = embedder.parts, hashlib.sha256()
    for name, tensor in embedder.model.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    encoders = {stream: entry.get("digest", entry["name"]) for stream, entry in parts.encoders.items()}
    digest.update(repr((parts.scoring, sorted(encoders.items()))).encode())
    return digest.hexdigest()[:40]
