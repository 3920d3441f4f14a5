"""Export a trained model as a folder (`trichord export-model`)."""

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
    """Write the model of a run, or a published checkpoint, as a folder.

    Args:
        run: Run, study or stage folder, or a published .pth file.
        out: New or empty folder, or a folder with an earlier export, which is replaced. An existing model card is not changed.
        store: As in `Embedder.from_run`.
        words: As in `Embedder.from_run`.
        results: As in `Embedder.from_run`.
        name: Name of the model in its card; None uses the name of the folder.
        license: License of the weights, for the card.
        language: Language of the texts, for the card.

    Returns:
        Lines that describe the contents of the folder.

    Raises:
        TrichordError: There is no such model, `out` is a file or contains anything but an earlier export, or the license contains
            no letter.

    Example:
        >>> text = export_model(Path("my_run"), Path("exported"), store="my_store", license="cc-by-4.0")
        >>> text.splitlines()[0]
        'exported: video, audio, text into 8 dimensions'
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
        source = "no word table" if parts.vocabulary is None else parts.vocabulary.source
        lines.append(f"  {count:,} words of {source}")
    count = num_figures(out / CARD)
    lines.append(f"  {count} figure{'s' if count != 1 else ''} in the model card")
    if kept_card:
        lines.append(f"note: {out / CARD} already existed and was not changed; delete it to write a new model card")
    elif hub is None:
        lines.append("note: the model card does not state a license; give it with --license")
    elif hub[1] is not None:
        lines.append(
            f"note: '{license}' is not an identifier of the hub (lower-case letters, digits, dots and dashes, such as cc-by-4.0); "
            f"the card has license: {hub[0]}, license_name: {hub[1]}"
        )
    elif hub[0] != license:
        lines.append(f"note: the card has license: {hub[0]}, the spelling of the hub")
    return "\n".join(lines)
