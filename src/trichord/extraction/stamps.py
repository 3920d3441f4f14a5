"""The stamps of Tux Paint: a real collection of pictures, recorded speech and English names, from a Debian package.

For a stamp NAME, the package tuxpaint-stamps-default contains a picture NAME.png (sometimes NAME.svg), its names in many languages
NAME.txt (the first line is English), and recordings of its name such as NAME_desc_es.ogg. A stamp with picture, recording and text
is one item of all three modalities. The speech is Spanish (or French, ...) and the text English, so that sound and text have no
words in common.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from trichord.captions import WordSplitting
from trichord.errors import TrichordError
from trichord.extraction.sources import Source
from trichord.files.paths import accepts_text_paths
from trichord.files.reading import read_text
from trichord.files.walking import own_files_below
from trichord.store.manifest import splitting_for

if TYPE_CHECKING:
    from trichord.extraction.extract import ExtractSummary

PACKAGE = "tuxpaint-stamps-default"
_PLACES = ("usr/share/tuxpaint/stamps", "share/tuxpaint/stamps", "tuxpaint/stamps", "stamps", ".")
_LEFT_OUT = "symbols"  # letters, digits, coins: their names say little about their appearance
_GET = f"get them with 'apt-get download {PACKAGE}' and 'dpkg -x {PACKAGE}_*.deb FOLDER', and pass that FOLDER"


def find_stamps(root: str | Path, language: str = "es", *, notes: list[str] | None = None) -> list[Source]:
    """Return the stamps with a PNG picture and a recording in a language, except symbols, sorted by name.

    A name is the path inside the stamps folder without suffix, such as `animals/birds/owl`. The split is fixed: test if the CRC-32
    of the name is divisible by 4, else train (Spanish, package 2022-06-04: 381 train, 131 test).

    Args:
        root: The folder that `dpkg -x` unpacked to, or the folder `stamps` inside it.
        language: The language of the speech: es, fr, ru, ro, ca, be, el, da, ...
        notes: A list that receives a line about stamps that were left out.

    Raises:
        TrichordError: The stamps are missing, or none is spoken in that language.
    """
    folder = _stamps_folder(Path(root))
    ending = f"_desc_{language}.ogg"
    sources, without_png, svg_alone, without_text = [], 0, 0, 0
    recordings = sorted(path for path in own_files_below(folder) if path.name.endswith(".ogg"))
    for recording in (path for path in recordings if path.name.endswith(ending)):
        base = recording.with_name(recording.name.removesuffix(ending))
        name = base.relative_to(folder).as_posix()
        if name.startswith(f"{_LEFT_OUT}/"):
            continue
        picture, text = base.with_name(f"{base.name}.png"), _english(base.with_name(f"{base.name}.txt"))
        if not picture.is_file():
            without_png += 1
            svg_alone += base.with_name(f"{base.name}.svg").is_file()
        elif not text:
            without_text += 1
        else:
            split = "test" if zlib.crc32(name.encode()) % 4 == 0 else "train"
            sources.append(
                Source(name, name, image=picture, audio=recording, text=(text,), split=split, file_name=name)
            )
    if not sources:
        endings = (path.stem.rpartition("_desc_")[2] for path in recordings if "_desc_" in path.stem)
        spoken = ", ".join(sorted({e for e in endings if "." not in e})) or "none"
        raise TrichordError(f"{folder}: no stamp is spoken in '{language}'; choose one of these languages: {spoken}")
    if notes is not None and without_png:
        notes.append(
            f"{folder}: {without_png} spoken stamps without a PNG were left out ({svg_alone} have only an SVG)"
        )
    if notes is not None and without_text:
        notes.append(f"{folder}: {without_text} spoken stamps without an English text were left out")
    return sorted(sources, key=lambda source: source.name)


@accepts_text_paths
def import_stamps(
    root: Path,
    store: Path,
    *,
    language: str = "es",
    visual_2d: str = "efficientnet-lite0",
    audio: str = "log-mel",
    text: str = "words",
    words: Path | None = None,
    word_splitting: WordSplitting | None = None,
    workers: int | None = None,
    device: str = "cpu",
) -> ExtractSummary:
    """Extract the stamps of Tux Paint in a language into a store, as collection `stamps-LANGUAGE`.

    Args:
        root: Folder that `dpkg -x` unpacked the package tuxpaint-stamps-default to, or the folder `stamps` inside it.
        store: Folder of the store. It is created if it does not exist, and extended if it does.
        language: Language of the speech as a code: es, fr, ru, ro, ca, be, el, da, ...
        visual_2d: Image encoder, as for `trichord extract`.
        audio: Audio encoder: log-mel, hf:MODEL, or both separated by a comma.
        text: Text features: words (only word vectors), or an additional encoder of whole captions: hf:MODEL or st:MODEL.
        words: File of word vectors. The default is GloVe 6B 50-d.
        word_splitting: How captions are split into words: unicode (letters keep their marks, as in Hindi and Thai) or published
            (as in the published loaders). The default is that of the store, or published for a new store.
        workers: Number of worker processes. The default is one per processor core.
        device: Device of the encoders: cpu or cuda.

    Returns:
        The summary of the run.

    Raises:
        TrichordError: See `find_stamps` and `extract_sources`.
    """
    from trichord.extraction.choice import EncoderChoice
    from trichord.extraction.extract import ExtractSummary, extract_sources

    notes: list[str] = []
    sources = find_stamps(root, language, notes=notes)
    summary = extract_sources(
        sources,
        store,
        collection=f"stamps-{language}",
        choice=EncoderChoice(visual_2d=visual_2d, audio=audio, text=text),
        words=words,
        word_splitting=splitting_for(Path(store), word_splitting) or "published",
        workers=workers,
        device=device,
        root=Path(root),
    )
    assert isinstance(summary, ExtractSummary), "this was not a dry run"
    summary.notes[:0] = notes
    return summary


def _stamps_folder(root: Path) -> Path:
    for place in _PLACES:
        folder = root / place
        if (folder / "animals").is_dir():
            return folder
    problem = "contains no stamps of Tux Paint" if root.is_dir() else "does not exist"
    raise TrichordError(f"{root}: {problem}; {_GET}")


def _english(path: Path) -> str:
    """Return the first line of a stamp's text; '' if there is none."""
    try:
        lines = read_text(path, errors="replace").splitlines()
    except OSError:
        return ""
    return lines[0].strip() if lines else ""
