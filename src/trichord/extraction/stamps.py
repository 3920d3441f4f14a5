"""Tux Paint's stamps: a real collection of pictures, recorded speech and English names, from a Debian package.

The package tuxpaint-stamps-default holds, for a stamp NAME in a folder of its kind, a picture NAME.png (some are
NAME.svg), its names in many languages NAME.txt (the first line is English) and recordings of its name such as
NAME_desc_es.ogg. A stamp with picture, recording and text is one item of all three modalities: the speech is Spanish
(or French, ...), the text English, so that sound and text have no word in common.
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
_LEFT_OUT = "symbols"  # letters, digits, coins: their names say little of their looks
_GET = f"get it with 'apt-get download {PACKAGE}' and 'dpkg -x {PACKAGE}_*.deb FOLDER', and name that FOLDER"


def find_stamps(root: str | Path, language: str = "es", *, notes: list[str] | None = None) -> list[Source]:
    """The stamps with a PNG picture and a recording in `language`, but for symbols, sorted by name.

    A name is the path inside the stamps folder without suffix, such as `animals/birds/owl`. The split is fixed: test
    where the CRC-32 of the name is divisible by 4, else train (Spanish, package 2022-06-04: 381 train, 131 test).

    Args:
        root: What `dpkg -x` unpacked, or the folder `stamps` inside it.
        language: Of the speech: es, fr, ru, ro, ca, be, el, da, ...
        notes: Takes a line on stamps that were left out.

    Raises TrichordError if the stamps are not there, or none is spoken in that language.
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
        raise TrichordError(f"{folder}: no stamp is spoken in '{language}'; choose a language that is there: {spoken}")
    if notes is not None and without_png:
        notes.append(
            f"{folder}: {without_png} spoken stamps without a PNG were left out ({svg_alone} have an SVG alone)"
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
    """Extract Tux Paint's stamps of a language into a store, as collection `stamps-LANGUAGE`.

    Args:
        root: what `dpkg -x` unpacked of the package tuxpaint-stamps-default, or the folder `stamps` inside it.
        store: store folder; made if it is not there, added to if it is.
        language: of the speech: es, fr, ru, ro, ca, be, el, da, ...
        visual_2d: image encoder, as for `trichord extract`.
        audio: log-mel, hf:MODEL, or both with a comma between.
        text: words (word vectors alone), or besides them an encoder of whole captions: hf:MODEL or st:MODEL.
        words: word vectors; GloVe 6B 50-d if not given.
        word_splitting: how captions become words: unicode (letters keep their marks, as in Hindi and Thai) or published (as the
            published loaders do). If not given, as in the store; published for a new one.
        workers: worker processes; if not given, one per processor core.
        device: where the encoders compute: cpu or cuda.

    Raises TrichordError as `find_stamps` and `extract_sources` do.
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
    assert isinstance(summary, ExtractSummary), "this was no dry run"
    summary.notes[:0] = notes
    return summary


def _stamps_folder(root: Path) -> Path:
    for place in _PLACES:
        folder = root / place
        if (folder / "animals").is_dir():
            return folder
    what = "holds no stamps of Tux Paint" if root.is_dir() else "no such folder"
    raise TrichordError(f"{root}: {what}; {_GET}")


def _english(path: Path) -> str:
    """First line of a stamp's text; empty where there is none."""
    try:
        lines = read_text(path, errors="replace").splitlines()
    except OSError:
        return ""
    return lines[0].strip() if lines else ""
