"""A trained model that embeds strings, files and arrays.

The methods are `encode_text`, `encode_video` and `encode_audio`, and `encode_features` for further modalities. An embedding equals
the one that `trichord extract` and `trichord evaluate` compute for the same part of the same file. It is bit-equal with the same
number of threads (OMP_NUM_THREADS) and the same clips in a call. Otherwise it is equal up to the rounding of float32 sums, which
depends on the number of threads and of rows in a product.

Shape letters: N items, D joint width, T time steps or frames, H and W picture height and width, F feature width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    path_or_none,
    spans_of,
    texts_of,
)
from trichord.embedder.batches import embed_rows
from trichord.embedder.encoders import FeatureEncoders
from trichord.embedder.folder import Parts, check_target, find_folder, read_folder, write_folder
from trichord.embedder.inputs import Inputs, stream_widths
from trichord.embedder.scores import fused, similarity
from trichord.errors import TrichordError
from trichord.files.writing import writing_to
from trichord.modality import in_order

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

    from trichord.store.location import Location

Text = str | Sequence[str]
Seconds = float | Sequence[float | None] | None


class Embedder(ModelHubMixin, library_name="trichord", tags=["trichord"]):
    """Embed video, audio and text in the joint space of a model.

    Create it with `from_pretrained`, `from_run` or `from_published`. Feature encoders are loaded when they are first used.

    Args:
        parts: The model with its settings and vocabulary.
        encoders: Encoder of each stream (visual_2d, visual_3d, spectrogram, audio, text), named as in `trichord extract`. It
            replaces the recorded encoder, for example if its folder has moved or no encoder was recorded.
        weights: Weights file of the encoder of each stream, instead of the default file.
        device: Device for all computations: cpu, cuda, ...

    Raises:
        TrichordError: The device is not available, or encoders or weights are given for a stream that the model does not read.

    Example:
        >>> embedder = Embedder.from_pretrained("my_model")
        >>> texts, videos = embedder.encode_text(["stir the soup"]), embedder.encode_video(["a.mp4", "b.mp4"])
        >>> embedder.similarity(texts, videos).shape
        (1, 2)
    """

    _hub_mixin_config: dict[str, Any] = {}  # the folder already has a config.json

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
        dims = stream_widths(self.model.arguments, parts.scoring)
        self.inputs = Inputs(parts.scoring, self.encoders, parts.vocabulary, dims)

    # ---- loading and saving

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
        """Load a model that `save_pretrained` wrote, from a folder or from the Hugging Face hub.

        Args:
            pretrained_model_name_or_path: The folder, or OWNER/NAME on the hub.
            force_download: Whether to download the files even if they are in the cache.
            token: Access token for private repositories.
            cache_dir: Cache folder, instead of the default one.
            local_files_only: Whether to use only files in the cache, without network access.
            revision: Branch, tag or commit of the repository.
            words: File with the complete word table, for words beyond those saved with the model.
            **options: `encoders`, `weights` and `device`, as in the class.

        Raises:
            TrichordError: The model does not exist, is damaged, or cannot be downloaded.

        Example:
            >>> embedder = Embedder.from_pretrained("my_model", device="cpu")
            >>> embedder.modalities
            ('video', 'audio', 'text')
        """
        check_options("from_pretrained", options)
        folder = find_folder(
            pretrained_model_name_or_path, revision=revision, cache_dir=cache_dir, force_download=force_download,
            local_files_only=local_files_only, token=token,
        )  # fmt: skip
        return cls(read_folder(folder, path_or_none(words)), **options)

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
        """Load the model of a run, study or stage folder.

        Args:
            run: The folder. For a study with several models, give one of the folders in `stages/`.
            store: Store that the model was trained on, which records its encoders and words; None uses the store named by the run.
            words: File with the complete word table, for words beyond those of the store.
            results: Folder of `trichord evaluate --out` with the figures for the model card; None uses the figures of the study.
            **options: `encoders`, `weights` and `device`, as in the class.

        Raises:
            TrichordError: The model or the store does not exist, or they do not belong together.

        Example:
            >>> Embedder.from_run("my_run", "my_store").modalities
            ('video', 'audio', 'text')
        """
        check_options("from_run", options)
        from trichord.embedder.origin import parts_of_run

        files = {"words": path_or_none(words), "results": path_or_none(results)}
        return cls(parts_of_run(Path(run), store, **files), **options)

    @classmethod
    def from_published(
        cls, path: str | Path, *, words: str | Path | None = None, store: Location | None = None, **options: Any
    ) -> Embedder:
        """Load a published checkpoint (.pth) of MCN, AVLnet or HowTo100M, with the published encoders.

        Args:
            path: The checkpoint file; no code in it is executed.
            words: File of its word table (GoogleNews word2vec); None restricts text to the words of `store`.
            store: Store with its features.
            **options: `encoders`, `weights` and `device`, as in the class.

        Raises:
            TrichordError: The file cannot be read or is not a known checkpoint.

        Example:
            >>> embedder = Embedder.from_published("e29.pth", words="GoogleNews-vectors-negative300.bin")
            >>> embedder.encode_text(["stir the soup"]).shape == (1, embedder.dim)
            True
        """
        check_options("from_published", options)
        from trichord.embedder.origin import parts_of_published
        from trichord.training.models import load_model

        return cls(parts_of_published(load_model(Path(path)), store, words=path_or_none(words)), **options)

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
        """Write the model as a folder, with a model card. An existing README.md is not changed.

        Args:
            save_directory: New or empty folder, or a folder with an earlier export, which is replaced.
            model_card_kwargs: Arguments of `generate_model_card`.
            push_to_hub: Whether to upload the folder as well.
            repo_id: OWNER/NAME on the hub; None uses the name of the folder.
            config: Not used, because the folder contains its own configuration.
            **push_to_hub_kwargs: `private`, `token`, `branch`, ..., as in `ModelHubMixin.push_to_hub`.

        Returns:
            The URL of the commit if the model was uploaded.

        Raises:
            TrichordError: An option is unknown or has no effect, a file is in the way, or the folder contains anything but an
                earlier export.

        Example:
            >>> embedder = Embedder.from_run("my_run", "my_store")
            >>> embedder.save_pretrained("my_new_model", model_card_kwargs={"license": "cc-by-4.0"})
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
        """Return the model card with the figures of the model.

        Args:
            *args: Not used; arguments must be given by name.
            **kwargs: `name`, `license` and `language`, as in `embedder.card.make_card`.

        Raises:
            TrichordError: An argument is unknown or invalid.

        Example:
            >>> embedder = Embedder.from_pretrained("my_model")
            >>> card = embedder.generate_model_card(name="my_model", license="cc-by-4.0")
            >>> card.data.license
            'cc-by-4.0'
        """
        from trichord.embedder.card import make_card

        check_card_options(args or kwargs)
        return make_card(self.parts, **kwargs)

    # ---- properties

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities that the model was trained on.

        Example:
            >>> Embedder.from_pretrained("my_depth_model").modalities
            ('video', 'depth')
        """
        return in_order(self.parts.trained.trained)

    @property
    def dim(self) -> int:
        """Width D of the joint space.

        Example:
            >>> Embedder.from_pretrained("my_model").dim
            8
        """
        return int(self.model.arguments["embed_dim"])

    def knows(self, captions: Sequence[str]) -> bool:
        """Return whether a text, given as its captions, contains a word that the model knows.

        Args:
            captions: The captions of one clip.

        Example:
            >>> embedder = Embedder.from_pretrained("my_model")
            >>> embedder.knows(["stir the soup"]), embedder.knows(["xyzzy"])
            (True, False)
        """
        if self.parts.scoring.text == "embeddings":
            return any(caption.strip() for caption in captions)
        vocabulary = self.parts.vocabulary
        return vocabulary is not None and len(vocabulary.vectors_of([captions])[0]) > 0

    # ---- encoding

    def encode_text(self, texts: Text | Sequence[Text], *, truncate: bool = True) -> np.ndarray:
        """Embed texts.

        Args:
            texts: A string or a list of strings. An item of the list may also be the tuple of the captions of a clip, which are
                read one after the other.
            truncate: Whether to cut texts that are too long for the model, as in evaluation; False raises an error.

        Returns:
            Embeddings (N, D) float32.

        Raises:
            TrichordError: A text is empty or contains no word that the model knows, or the model was not trained on text.

        Example:
            >>> embedder = Embedder.from_pretrained("my_model")
            >>> embedder.encode_text(["stir the soup", "cut the bread"]).shape
            (2, 8)
        """
        self._require("text")
        items = texts_of(texts)
        return self._embed("text", self.inputs.words(items, truncate))

    def encode_video(
        self, videos: Any, *, rate_hz: float | None = None, start_s: Seconds = None, end_s: Seconds = None
    ) -> np.ndarray:
        """Embed the pictures of videos.

        Args:
            videos: One item or a list of items. An item is a file (a video or a still picture), frames (T, H, W, 3) uint8 RGB,
                features (T, F) of the encoder of the model, or features by stream {name: (T, F)}.
            rate_hz: Number of frames per second, for frames.
            start_s: Start of the part of each file or frame sequence in seconds; one number for all items, or one for each.
            end_s: End of this part in seconds; one number for all items, or one for each.

        Returns:
            Embeddings (N, D) float32.

        Raises:
            TrichordError: An item cannot be read or has an unknown form, an encoder is not available, a span is empty, or the
                model was not trained on video.

        Example:
            >>> embedder = Embedder.from_pretrained("my_model")
            >>> embedder.encode_video(["a.mp4", "b.mp4"], end_s=1.0).shape
            (2, 8)
            >>> features = np.ones((5, 1280), np.float32)  # of the encoder that the model was trained with
            >>> embedder.encode_video(features).shape
            (1, 8)
        """
        self._require("video")
        check_rate(rate_hz, "frames")
        items = items_of(videos)
        spans = spans_of(start_s, end_s, len(items))
        rows = (self.inputs.video(item, span, rate_hz) for item, span in zip(items, spans, strict=True))
        return self._embed("video", rows)

    def encode_audio(
        self,
        sounds: Any,
        *,
        rate_hz: float | None = None,
        start_s: Seconds = None,
        end_s: Seconds = None,
        truncate: bool = True,
    ) -> np.ndarray:
        """Embed sounds.

        Args:
            sounds: One item or a list of items. An item is a media file, mono samples (N,) as floating-point numbers in [-1, 1] or
                16-bit integers, a log-mel spectrogram (40, T) as computed by `features.log_mel`, or audio embeddings (T, C) for a
                model that reads these.
            rate_hz: Number of samples per second, for samples.
            start_s: Start of the part of each item in seconds; one number for all items, or one for each. Loudness is relative to
                the whole file or array.
            end_s: End of this part in seconds; one number for all items, or one for each.
            truncate: Whether to cut sounds that are too long for the model, as in evaluation; False raises an error.

        Returns:
            Embeddings (N, D) float32.

        Raises:
            TrichordError: An item cannot be read, has an unknown form or contains no sound, or the model was not trained on audio.

        Example:
            >>> embedder = Embedder.from_pretrained("my_model")
            >>> spectrogram = np.full((40, 300), -80.0, np.float32)  # three seconds of silence
            >>> embedder.encode_audio(spectrogram).shape
            (1, 8)
        """
        self._require("audio")
        check_rate(rate_hz, "samples")
        items = items_of(sounds)
        spans = spans_of(start_s, end_s, len(items))
        rows = (self.inputs.audio(item, span, rate_hz, truncate) for item, span in zip(items, spans, strict=True))
        return self._embed("audio", rows)

    def encode_features(self, modality: str, arrays: Any) -> np.ndarray:
        """Embed a modality beyond video, audio and text that the model reads as feature arrays.

        Args:
            modality: Name of the modality, such as depth.
            arrays: One item or a list of items. An item is a file (.npy, or .npz with one array), a vector (F,), or rows over time
                (T, F).

        Returns:
            Embeddings (N, D) float32.

        Raises:
            TrichordError: An array cannot be read or has an unknown form or width, or the model was not trained on the modality.

        Example:
            >>> embedder = Embedder.from_pretrained("my_depth_model")
            >>> embedder.encode_features("depth", ["a.npy", "b.npy"]).shape
            (2, 8)
        """
        self._require(modality)
        return self._embed(modality, [self.inputs.features(modality, item) for item in items_of(arrays)])

    def fuse(self, *parts: np.ndarray) -> np.ndarray:
        """Combine the embeddings of several modalities of the same items, as in evaluation.

        Args:
            *parts: Embeddings (N, D) of each modality.

        Returns:
            The sum (N, D) of the embeddings or, if scores are cosines, the mean of the normalized embeddings.

        Raises:
            TrichordError: The shapes differ.

        Example:
            >>> embedder = Embedder.from_pretrained("my_model")
            >>> video, text = embedder.encode_video(np.ones((5, 1280), "f")), embedder.encode_text("stir the soup")
            >>> embedder.fuse(video, text).shape
            (1, 8)
        """
        return fused(parts, self.parts.scoring.cosine)

    def similarity(self, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
        """Return the scores of queries and gallery items: cosines or dot products, as in training.

        With cosines, fused embeddings are normalized again, whereas `trichord evaluate` uses them as they are.

        Args:
            queries: Embeddings (N, D).
            gallery: Embeddings (M, D).

        Returns:
            Scores (N, M) float32.

        Raises:
            TrichordError: The width of the embeddings is not that of the model.

        Example:
            >>> embedder = Embedder.from_pretrained("my_model")
            >>> texts = embedder.encode_text(["stir the soup", "cut the bread"])
            >>> embedder.similarity(texts, embedder.encode_text("fry an egg")).shape
            (2, 1)
        """
        return similarity(queries, gallery, self.dim, self.parts.scoring.cosine)

    def _require(self, modality: str) -> None:
        if modality not in self.modalities:
            raise TrichordError(
                f"this model was not trained on {modality}; its modalities are {', '.join(self.modalities)}"
            )

    def _embed(self, modality: str, rows: Iterable[np.ndarray]) -> np.ndarray:
        return embed_rows(self.model, modality, rows, self.parts.scoring, self.device)
