"""A trained model with all that leads to it from strings, files and arrays: `encode_text`, `encode_video`, `encode_audio`,
and `encode_features` for modalities beyond these.

An embedding is the one that `trichord extract` and `trichord evaluate` give for the same part of the same file: the same bits
with the same threads (OMP_NUM_THREADS) and the same clips in a call; else equal up to the rounding of sums in float32, which
the number of threads and of rows in a product changes.

Shape letters: N items, D joint width, T time steps or frames, H and W picture height and width, F feature width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from huggingface_hub import ModelHubMixin

from trichord.embedder.arguments import (
    check_card_options,
    check_encoders,
    check_folder,
    check_options,
    check_push,
    check_rate,
    device_of,
    items_of,
    spans_of,
    texts_of,
)
from trichord.embedder.encoders import FeatureEncoders
from trichord.embedder.folder import Parts, check_target, find_folder, read_folder, write_folder
from trichord.embedder.inputs import Inputs
from trichord.errors import TrichordError
from trichord.evaluation.retrieval import fuse, unit
from trichord.files.writing import writing_to
from trichord.modality import in_order
from trichord.protocols.benchmarks import CLIPS_PER_BATCH

if TYPE_CHECKING:
    import torch
    from huggingface_hub import ModelCard

    from trichord.store.location import Location

Text = str | Sequence[str]
Seconds = float | Sequence[float | None] | None


class Embedder(ModelHubMixin, library_name="trichord", tags=["trichord"]):
    """Puts video, audio and text into the joint space of one model.

    Made by `from_pretrained`, `from_run` or `from_published`. Encoders of features are loaded when they are first needed.

    Args:
        parts: The model and what is known of it.
        encoders: Stream (visual_2d, visual_3d, spectrogram, audio, text) -> name of the encoder as `trichord extract` takes it,
            in place of the recorded one: where a folder lies elsewhere, or nothing was recorded.
        weights: Stream -> weights file of the encoder, in place of the usual one.
        device: Where everything computes: cpu, cuda, ...

    Raises TrichordError for a device that is not here, and for encoders or weights of what the model does not read.
    """

    _hub_mixin_config: dict[str, Any] = {}  # the folder has a config.json of its own

    def __init__(
        self,
        parts: Parts,
        *,
        encoders: Mapping[str, str] | None = None,
        weights: Mapping[str, Path | str] | None = None,
        device: str = "cpu",
    ) -> None:
        check_encoders(parts.trained, encoders, weights)
        self.parts, self.device = parts, device_of(device)
        self.model = parts.trained.model.eval().to(self.device)
        self.encoders = FeatureEncoders(
            parts.encoders, names=encoders, weights={s: Path(p) for s, p in (weights or {}).items()}, device=self.device
        )
        arguments = self.model.arguments
        dims = {"video": arguments["video_dim"], "audio": arguments["audio_dim"] or arguments["mel_bins"]}
        dims |= arguments.get("feature_dims", {})
        if len(parts.scoring.visual_streams) == 1:
            dims[parts.scoring.visual_streams[0]] = arguments["video_dim"]
        self.inputs = Inputs(parts.scoring, self.encoders, parts.vocabulary, dims)

    # ---- where it comes from and goes to

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        words: str | Path | None = None,
        **options: Any,
    ) -> Embedder:
        """A model that `save_pretrained` wrote: from a folder, or OWNER/NAME of the Hugging Face hub.

        Args:
            pretrained_model_name_or_path: The folder, or the name.
            force_download: Download anew.
            token: For private repositories.
            cache_dir: In place of the hub's cache.
            local_files_only: Ask no network.
            revision: Branch, tag or commit of the repository.
            words: File of the whole word table, for words beyond those that came with the model.
            options: `encoders`, `weights`, `device`, as of the class.

        Raises TrichordError, one line, when it is not there, is damaged, or cannot be downloaded.
        """
        check_options("from_pretrained", options)
        folder = find_folder(
            pretrained_model_name_or_path, revision=revision, cache_dir=cache_dir, force_download=force_download,
            local_files_only=local_files_only, token=token,
        )  # fmt: skip
        return cls(read_folder(folder, None if words is None else Path(words)), **options)

    @classmethod
    def from_run(
        cls,
        run: str | Path,
        store: Location | None = None,
        *,
        words: str | Path | None = None,
        results: str | Path | None = None,
        **options: Any,
    ) -> Embedder:
        """The model of a run, study or stage folder.

        Args:
            run: The folder; of a study with several models one of its `stages/`.
            store: That it was trained on, which tells encoders and words; None takes the one that the run names.
            words: File of the whole word table, for words beyond the store's.
            results: Folder of `trichord evaluate --out`, for the card; None takes the figures of the study.
            options: `encoders`, `weights`, `device`, as of the class.

        Raises TrichordError when there is no such model or store, or the two do not fit.
        """
        check_options("from_run", options)
        from trichord.embedder.origin import parts_of_run

        return cls(parts_of_run(Path(run), store, words=_path(words), results=_path(results)), **options)

    @classmethod
    def from_published(
        cls, path: str | Path, *, words: str | Path | None = None, store: Location | None = None, **options: Any
    ) -> Embedder:
        """A published checkpoint (.pth) of MCN, AVLnet or HowTo100M behind the published encoders.

        Args:
            path: The file; nothing in it is executed.
            words: File of its word table (GoogleNews word2vec); None: text only as far as `store` has the words.
            store: A store of its features.
            options: `encoders`, `weights`, `device`, as of the class.
        """
        check_options("from_published", options)
        from trichord.embedder.origin import parts_of_published
        from trichord.training.models import load_model

        return cls(parts_of_published(load_model(Path(path)), store, words=_path(words)), **options)

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        model_card_kwargs: dict[str, Any] | None = None,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        config: Any = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Write the model as a folder, with a model card. A README.md that is there is left alone.

        Args:
            save_directory: New or empty folder, or one with an earlier export, which is replaced.
            model_card_kwargs: As of `generate_model_card`.
            push_to_hub: Also upload it.
            repo_id: OWNER/NAME there; None takes the folder's name.
            config: Of no use here: the folder describes itself.
            push_to_hub_kwargs: `private`, `token`, `branch`, ...: as of `ModelHubMixin.push_to_hub`.

        Returns:
            The URL of the commit, where it was pushed.

        Raises TrichordError for options that there are not or that have no effect, where a file is in the way, and when the
        folder holds anything but an earlier export.
        """
        folder = Path(save_directory)
        check_card_options(model_card_kwargs or {})
        check_push(push_to_hub, repo_id, push_to_hub_kwargs)
        check_folder(folder)
        check_target(folder)
        kwargs = {"name": folder.resolve().name, **(model_card_kwargs or {})}
        with writing_to(folder):
            return super().save_pretrained(
                folder, model_card_kwargs=kwargs, push_to_hub=push_to_hub, repo_id=repo_id, **push_to_hub_kwargs
            )

    def _save_pretrained(self, save_directory: Path) -> None:
        write_folder(save_directory, self.parts)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The card with the model's figures: see `embedder.card.make_card` for `name`, `license` and `language`, which are
        given by name."""
        from trichord.embedder.card import make_card

        check_card_options(args or kwargs)
        return make_card(self.parts, **kwargs)

    # ---- what it knows

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that it was trained on."""
        return in_order(self.parts.trained.trained)

    @property
    def dim(self) -> int:
        """D."""
        return int(self.model.arguments["embed_dim"])

    def knows(self, captions: Sequence[str]) -> bool:
        """Whether a text, given as its captions, holds a word that the model knows."""
        if self.parts.scoring.text == "embeddings":
            return any(caption.strip() for caption in captions)
        vocabulary = self.parts.vocabulary
        return vocabulary is not None and len(vocabulary.vectors_of([captions])[0]) > 0

    # ---- encoding

    def encode_text(self, texts: Text | Sequence[Text], *, truncate: bool = True) -> np.ndarray:
        """Embeddings (N, D) float32 of texts.

        Args:
            texts: A string, or a list of them; in place of a string the tuple of a clip's captions, read one after the other.
            truncate: Cut what is longer than the model reads (as in evaluation); False refuses it.

        Raises TrichordError for a text that is empty or holds no word that the model knows, and for an untrained modality.
        """
        import torch

        self._require("text")
        items = texts_of(texts)
        rows = self.inputs.words(items, truncate)
        reads_words = self.parts.scoring.text == "words"
        found = []
        for begin in range(0, len(rows), CLIPS_PER_BATCH):
            batch = rows[begin : begin + CLIPS_PER_BATCH]
            length = self.parts.scoring.max_words if reads_words else max(map(len, batch))
            text = np.zeros((len(batch), length, batch[0].shape[1]), np.float32)
            mask = np.zeros((len(batch), length), bool)
            for row, vectors in enumerate(batch):
                text[row, : len(vectors)], mask[row, : len(vectors)] = vectors, True
            found.append(self._embed("text", text=torch.from_numpy(text), text_mask=torch.from_numpy(mask)))
        return self._whole(found)

    def encode_video(
        self,
        videos: Any,
        *,
        rate_hz: float | None = None,
        start_s: Seconds = None,
        end_s: Seconds = None,
    ) -> np.ndarray:
        """Embeddings (N, D) float32 of the pictures of videos.

        Args:
            videos: One, or a list, of: a file (also a still picture); frames (T, H, W, 3) uint8 RGB; features (T, F) of the
                model's encoder; features by stream {name: (T, F)}.
            rate_hz: Frames a second, of frames.
            start_s, end_s: Part of each file or of its frames, in seconds; one number for all, or one for each.

        Raises TrichordError for an item that cannot be read or is of another form, an encoder that is not here, an empty span,
        and an untrained modality.
        """
        import torch

        self._require("video")
        check_rate(rate_hz, "frames")
        items = items_of(videos)
        spans = spans_of(start_s, end_s, len(items))
        found = []
        for begin in range(0, len(items), CLIPS_PER_BATCH):
            end = begin + CLIPS_PER_BATCH
            rows = [
                self.inputs.video(item, span, rate_hz)
                for item, span in zip(items[begin:end], spans[begin:end], strict=True)
            ]
            found.append(self._embed("video", video=torch.from_numpy(np.stack(rows))))
        return self._whole(found)

    def encode_audio(
        self,
        sounds: Any,
        *,
        rate_hz: float | None = None,
        start_s: Seconds = None,
        end_s: Seconds = None,
        truncate: bool = True,
    ) -> np.ndarray:
        """Embeddings (N, D) float32 of sounds.

        Args:
            sounds: One, or a list, of: a media file; mono samples (N,), floating point in [-1, 1] or 16-bit; a log-mel
                spectrogram (40, T) as `features.log_mel` makes it, or, for a model of audio embeddings, those (T, C).
            rate_hz: Samples a second, of samples.
            start_s, end_s: Part of each file, its samples or its spectrogram, in seconds; one number for all, or one for each.
                Loudness is relative to the whole file or array.
            truncate: Cut what is longer than the model reads (as in evaluation); False refuses it.

        Raises TrichordError for an item that cannot be read, is of another form or holds no sound, and an untrained modality.
        """
        import torch

        self._require("audio")
        check_rate(rate_hz, "samples")
        items = items_of(sounds)
        spans = spans_of(start_s, end_s, len(items))
        scoring, found = self.parts.scoring, []
        for begin in range(0, len(items), CLIPS_PER_BATCH):
            end = begin + CLIPS_PER_BATCH
            rows = [
                self.inputs.audio(item, span, rate_hz, truncate)
                for item, span in zip(items[begin:end], spans[begin:end], strict=True)
            ]
            if scoring.audio == "embeddings":
                found.append(self._embed("audio", audio_pooled=torch.from_numpy(np.stack(rows))))
                continue
            padded = np.full((len(rows), scoring.audio_frames, rows[0].shape[1]), scoring.audio_pad_db, np.float32)
            for row, frames in enumerate(rows):
                padded[row, : len(frames)] = frames
            counts = torch.tensor([len(frames) for frames in rows])
            audio = torch.from_numpy(padded).transpose(1, 2)  # laid out in memory as the reader's
            found.append(self._embed("audio", audio=audio, audio_frames=counts))
        return self._whole(found)

    def encode_features(self, modality: str, arrays: Any) -> np.ndarray:
        """Embeddings (N, D) float32 of a modality beyond video, audio and text, which the model reads as feature arrays.

        Args:
            modality: Its name, such as depth.
            arrays: One, or a list, of: a file (.npy, or .npz with one array); a vector (F,); rows in time (T, F).

        Raises TrichordError for an array that cannot be read or is of another form or width, and for an untrained modality.
        """
        import torch

        self._require(modality)
        rows = [self.inputs.features(modality, item) for item in items_of(arrays)]
        batches = (rows[begin : begin + CLIPS_PER_BATCH] for begin in range(0, len(rows), CLIPS_PER_BATCH))
        return self._whole([self._embed(modality, **{modality: torch.from_numpy(np.stack(b))}) for b in batches])

    def fuse(self, *parts: np.ndarray) -> np.ndarray:
        """One embedding (N, D) of items from those of several modalities (N, D) each: their sum, or with cosine scores the mean
        of the embeddings of length one: as in evaluation."""
        if not parts or len({part.shape for part in parts}) > 1:
            raise TrichordError(
                f"embeddings of shapes {[part.shape for part in parts]} cannot be joined; give (N, D) of the same items"
            )
        return fuse(list(parts), "mean_normalized" if self.parts.scoring.cosine else "sum")

    def similarity(self, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
        """Scores (N, M) float32 of embeddings (N, D) against (M, D): cosines or dot products, as the model was trained.

        Cosines of several modalities fused are those of the fused embedding; `trichord evaluate` takes it as long as it is.
        """
        one, two = (np.atleast_2d(np.asarray(rows, np.float32)) for rows in (queries, gallery))
        if one.shape[1] != self.dim or two.shape[1] != self.dim:
            raise TrichordError(
                f"embeddings of width {one.shape[1]} and {two.shape[1]}, the model's have {self.dim}; use its own"
            )
        if self.parts.scoring.cosine:
            one, two = unit(one), unit(two)
        return np.asarray(one @ two.T, np.float32)

    def _require(self, modality: str) -> None:
        if modality not in self.modalities:
            raise TrichordError(f"this model was not trained on {modality}; it knows {', '.join(self.modalities)}")

    def _embed(self, modality: str, **inputs: torch.Tensor) -> np.ndarray:
        import torch

        with torch.inference_mode():
            on_device = {name: tensor.to(self.device) for name, tensor in inputs.items()}
            return np.asarray(self.model.embed(**on_device)[modality].float().cpu().numpy())

    def _whole(self, batches: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(batches) if batches else np.empty((0, self.dim), np.float32)


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)
