"""Commands that export models, and embed files with them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from trichord.cli.parsing import parse, parser_of, say, show


def export_model(words: list[str]) -> int:
    parser = parser_of(
        "export-model",
        "Write a trained model as a folder that others can use: weights, encoders, words, model card.",
        "trichord export-model my_study/stages/STAGE --out my_model --license cc-by-4.0",
    )
    parser.add_argument("run", type=Path, help="Run, study or stage folder, or a published .pth file.")
    parser.add_argument("--out", type=Path, required=True, help="Folder of the model.")
    parser.add_argument(
        "--store",
        type=str | None,
        help="The store that the model was trained on. By default, the one that the run names.",
    )
    parser.add_argument("--words", type=Path | None, help="File of word vectors. By default, the words of the store.")
    parser.add_argument(
        "--results",
        type=Path | None,
        help="Folder of `trichord evaluate --out` with the figures for the card. By default, those of the study.",
    )
    parser.add_argument(
        "--name", type=str | None, help="Name of the model in its card. By default, that of the folder."
    )
    parser.add_argument(
        "--license",
        type=str | None,
        help="License of the weights: an identifier of the hub such as cc-by-4.0, or a name.",
    )
    parser.add_argument("--language", type=str | None, help="Language of the texts, such as en.")
    values = parse(parser, words)
    from trichord.embedder.export import export_model

    show(
        export_model(
            values.run, values.out, store=values.store, words=values.words, results=values.results, name=values.name,
            license=values.license, language=values.language,
        )
    )  # fmt: skip
    return 0


def embed(words: list[str]) -> int:
    parser = parser_of(
        "embed",
        "Embed files, and the captions beside them, with an exported model, and write a file of embeddings.",
        "trichord embed my_model clips/*.mp4 --out clips.safetensors; trichord evaluate --embeddings clips.safetensors",
    )
    parser.add_argument("model", type=str, help="Folder of an exported model, or OWNER/NAME of the hub.")
    parser.add_argument(
        "files",
        type=Path,
        nargs="+",
        help="Media files. A folder stands for the videos in it, a table of clips for its rows.",
    )
    parser.add_argument("--out", type=Path, required=True, help="The .safetensors or .npz file to write.")
    parser.add_argument(
        "--window_s", type=float | None, help="Length in seconds of the clips into which longer files are cut."
    )
    parser.add_argument("--words", type=Path | None, help="File of word vectors. By default, the words of the model.")
    parser.add_argument(
        "--encoders",
        type=dict[str, str] | None,
        help="Encoder of each stream. By default, the encoders that the model records.",
    )
    parser.add_argument(
        "--weights", type=dict[str, Path] | None, help="File with the weights of the encoder of each stream."
    )
    parser.add_argument("--revision", type=str | None, help="Revision of the hub's repository.")
    parser.add_argument("--device", type=str, default="cpu", help="Where to compute: cpu or cuda.")
    values = parse(parser, [word.replace("--window-s", "--window_s") for word in words])
    from trichord.embedder.embedder import Embedder
    from trichord.embedder.files import embed_files
    from trichord.embedder.worker import Worker
    from trichord.evaluation.embedded import check_target

    check_target(values.out)
    options = {name: getattr(values, name) for name in ("revision", "words", "encoders", "weights", "device")}
    load = partial(Embedder.from_pretrained, values.model, **options)
    model = load()
    with Worker(load) as worker:
        embedded = embed_files(model, values.files, window_s=values.window_s, say=say, worker=worker)
    embedded.save(values.out)
    told = ", ".join(f"{int(there.sum())} of {m}" for m, there in embedded.valid.items())
    show(f"{values.out}: {embedded.num_clips} clips ({told}), {model.dim} dimensions")
    return 0
