"""`trichord export-model`: a trained model as a folder for others."""

from __future__ import annotations

from pathlib import Path

from trichord.embedder.embedder import Embedder
from trichord.embedder.folder import CARD
from trichord.errors import TrichordError
from trichord.store.location import Location


def export_model(
    run: Path,
    out: Path,
    *,
    store: Location | None = None,
    words: Path | None = None,
    results: Path | None = None,
    name: str | None = None,
    license: str | None = None,
    language: str | None = None,
) -> str:
    """Write the model of a run, or a published checkpoint, as a folder. Returns lines that say what it holds.

    Args:
        run: Run, study or stage folder, or a published .pth file.
        out: Folder; what it holds of a model is replaced, a model card that is there is left alone.
        store, words, results: As of `Embedder.from_run`.
        name: Of the model, in its card; None takes the folder's.
        license, language: Of the weights and of the texts, for the card.

    Raises TrichordError when there is no such model, or `out` is the run itself.
    """
    if out.resolve() == run.resolve():
        raise TrichordError(f"{out}: is the run itself; give another --out")
    embedder = Embedder.from_run(run, store, words=words, results=results)
    kept_card = (out / CARD).is_file()
    card = {"license": license, "language": language, **({} if name is None else {"name": name})}
    embedder.save_pretrained(out, model_card_kwargs=card)
    parts = embedder.parts
    lines = [f"{out}: {', '.join(embedder.modalities)} into {embedder.dim} dimensions"]
    for stream, entry in parts.encoders.items():
        lines.append(f"  {stream} by {entry['name']} ({entry.get('digest', 'fingerprint unknown')})")
    if "text" in embedder.modalities and parts.trained.text == "words":
        count = 0 if parts.vocabulary is None else len(parts.vocabulary.words().words)
        source = "no table" if parts.vocabulary is None else parts.vocabulary.source
        lines.append(f"  {count:,} words of {source}")
    lines.append(f"  {len(parts.results)} figures in the model card")
    if kept_card:
        lines.append(f"note: {out / CARD} was there and was left as it is; delete it for a new one")
    if license is None:
        lines.append("note: the card names no license; --license does")
    return "\n".join(lines)
