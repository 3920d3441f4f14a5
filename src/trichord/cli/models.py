"""Commands that export models, and embed files with them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from trichord.cli.command import command
from trichord.cli.parsing import show


@command("trichord export-model my_study/stages/STAGE --out my_model --license cc-by-4.0", positional=("run",))
def export_model(
    run: Path,
    *,
    out: Path,
    store: str | None = None,
    words: Path | None = None,
    results: Path | None = None,
    name: str | None = None,
    license: str | None = None,
    language: str | None = None,
) -> int:
    """Write a trained model as a folder that others can use: weights, encoders, words, model card.

    Args:
        run: Run, study or stage folder, or a published .pth file.
        out: Folder of the model.
        store: Store that the model was trained on. By default, the store that the run names.
        words: File of word vectors. By default, the words of the store.
        results: Folder of `trichord evaluate --out` with the figures for the model card. By default, the figures of the study.
        name: Name of the model in its card. By default, the name of the folder.
        license: License of the weights: an identifier of the hub such as cc-by-4.0, or a name. By default, the card does not
            state a license.
        language: Language of the texts as a code, such as en. By default, the card does not state a language.
    """
    from trichord.embedder.export import export_model

    card = {"name": name, "license": license, "language": language}
    show(export_model(run, out, store=store, words=words, results=results, **card))
    return 0


@command(
    "trichord embed my_model clips/*.mp4 --out clips.safetensors; trichord evaluate --embeddings clips.safetensors",
    positional=("model", "files"),
    files={"nargs": "+"},
)
def embed(
    model: str,
    files: list[Path],
    *,
    out: Path,
    window_s: float | None = None,
    words: Path | None = None,
    encoders: dict[str, str] | None = None,
    weights: dict[str, Path] | None = None,
    revision: str | None = None,
    device: str = "cpu",
) -> int:
    """Embed files and their captions with an exported model, and write a file of embeddings.

    Args:
        model: Folder of an exported model, or OWNER/NAME on the hub.
        files: Media files. A folder stands for the videos in it, and a table of clips for its rows.
        out: File to write: .safetensors or .npz.
        window_s: Duration of the clips that longer files are cut into, in seconds. By default, each file is one clip.
        words: File of word vectors. By default, the words of the model.
        encoders: Encoder of each stream, such as '{visual_2d: resnet152}'. By default, the encoders that the model records.
        weights: Weights file of the encoder of each stream, such as '{visual_2d: resnet152.pth}'. By default, those of
            `trichord extract`.
        revision: Branch, tag or commit of the repository on the hub. By default, the newest commit.
        device: Device for all computations: cpu or cuda.
    """
    from trichord.embedder.embedder import Embedder
    from trichord.embedder.files import embed_files
    from trichord.embedder.worker import Worker
    from trichord.evaluation.embedded import check_target

    check_target(out)
    load = partial(
        Embedder.from_pretrained,
        model,
        revision=revision,
        words=words,
        encoders=encoders,
        weights=weights,
        device=device,
    )
    embedder = load()
    with Worker(load) as worker:
        embedded = embed_files(embedder, files, window_s=window_s, worker=worker)
    embedded.save(out)
    counts = ", ".join(f"{int(is_valid.sum())} of {m}" for m, is_valid in embedded.valid.items())
    show(f"{out}: {embedded.num_clips} clips ({counts}), {embedder.dim} dimensions")
    return 0
