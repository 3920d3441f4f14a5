"""`trichord export-model`: a trained model as a folder for others."""

from __future__ import annotations

from pathlib import Path

from trichord.embedder.arguments import check_folder
from trichord.embedder.card import hub_license, num_figures
from trichord.embedder.embedder import Embedder
from trichord.embedder.folder import CARD, check_target
from trichord.files.paths import accepts_text_paths
from trichord.store.location import Location


@accepts_text_paths
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
        out: New or empty folder, or one with an earlier export, which is replaced. A model card that is there is left alone.
        store, words, results: As of `Embedder.from_run`.
        name: Of the model, in its card; None takes the folder's.
        license, language: Of the weights and of the texts, for the card.

    Raises TrichordError when there is no such model, `out` is a file or holds anything but an earlier export, or the license
    holds no letter.
    """
    check_folder(out)
    check_target(out)
    hub = None if license is None else hub_license(license)
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
    count = num_figures(out / CARD)
    lines.append(f"  {count} figure{'s' if count != 1 else ''} in the model card")
    if kept_card:
        lines.append(f"note: {out / CARD} was there and was left as it is; delete it for a new one")
    elif hub is None:
        lines.append("note: the card names no license; --license does")
    elif hub[1] is not None:
        lines.append(
            f"note: '{license}' has not the form of the hub's identifiers (small letters, digits, dots, dashes: cc-by-4.0); "
            f"the card has license: {hub[0]}, license_name: {hub[1]}"
        )
    elif hub[0] != license:
        lines.append(f"note: the card has license: {hub[0]}, as the hub writes it")
    return "\n".join(lines)
