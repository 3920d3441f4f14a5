"""Tux Paint stamps, from a folder with the layout of the package."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from trichord.errors import TrichordError
from trichord.extraction import stamps as module
from trichord.extraction.sources import Source
from trichord.extraction.stamps import find_stamps, import_stamps


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder of stamps, of which cat, dog and cafe/tea are complete in Spanish."""
    root = tmp_path / "pkg" / "usr" / "share" / "tuxpaint" / "stamps"
    for name, suffixes in {
        "animals/cat": (".png", ".txt", "_desc_es.ogg", "_desc_fr.ogg", ".ogg"),
        "animals/dog": (".png", ".svg", ".txt", "_desc_es.ogg"),
        "animals/dog_mirror": (".png",),
        "cafe/tea": (".png", ".txt", "_desc_es.ogg"),
        "cafe/cup": (".svg", ".txt", "_desc_es.ogg"),  # only an SVG
        "cafe/jar": (".txt", "_desc_es.ogg"),  # no picture
        "cafe/mute": (".png", ".txt", "_desc_fr.ogg"),
        "cafe/dumb": (".png", "_desc_es.ogg"),  # no text
        "symbols/a": (".png", ".txt", "_desc_es.ogg"),
    }.items():
        for suffix in suffixes:
            path = root / f"{name}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"A {path.stem}. \nes.utf8=Un {path.stem}.\n" if suffix == ".txt" else "")
    return tmp_path / "pkg"


def test_what_counts_as_a_stamp(package: Path) -> None:
    notes: list[str] = []
    stamps = find_stamps(package, notes=notes)
    root = package / "usr" / "share" / "tuxpaint" / "stamps"
    assert [source.video_id for source in stamps] == ["animals/cat", "animals/dog", "cafe/tea"]
    split = "test" if zlib.crc32(b"animals/cat") % 4 == 0 else "train"
    picture, speech = root / "animals" / "cat.png", root / "animals" / "cat_desc_es.ogg"
    name = "animals/cat"
    assert stamps[0] == Source(name, name, image=picture, audio=speech, text=("A cat.",), split=split, file_name=name)
    assert [note.removeprefix(f"{root}: ") for note in notes] == [
        "2 spoken stamps without a PNG were left out (1 have only an SVG)",
        "1 spoken stamps without an English text were left out",
    ]
    assert [s.video_id for s in find_stamps(package, "fr")] == ["animals/cat", "cafe/mute"]


@pytest.mark.parametrize("place", ["usr", "usr/share/tuxpaint", "usr/share/tuxpaint/stamps"])
def test_names_and_splits_do_not_depend_on_where_the_root_is_given(package: Path, place: str) -> None:
    assert find_stamps(package / place) == find_stamps(package)


def test_the_fixed_split(tmp_path: Path) -> None:
    """Two names of the package with the splits of the reference figures."""
    for name in ("animals/birds/owl", "vehicles/locomotive/cartoon/carriage"):
        (tmp_path / name).parent.mkdir(parents=True)
        for suffix in (".png", ".txt", "_desc_es.ogg"):
            (tmp_path / f"{name}{suffix}").write_text("A thing.\n")
    assert [source.split for source in find_stamps(tmp_path)] == ["train", "test"]


def test_roots_and_languages_that_give_nothing(package: Path, tmp_path: Path) -> None:
    with pytest.raises(TrichordError, match="gone: does not exist; get them with 'apt-get download tuxpaint-stamps"):
        find_stamps(tmp_path / "gone")
    with pytest.raises(TrichordError, match=r"contains no stamps of Tux Paint; .*'dpkg -x .*and pass that FOLDER$"):
        find_stamps(package / "usr" / "share" / "tuxpaint" / "stamps" / "cafe")
    with pytest.raises(TrichordError, match="no stamp is spoken in 'de'; choose one of these languages: es, fr$"):
        find_stamps(package, "de")


def test_importing_hands_the_stamps_to_the_driver(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trichord.extraction import extract

    received: dict[str, object] = {}

    def extract_sources(sources: list[Source], store: Path, **options: object) -> extract.ExtractSummary:
        received.update(options, sources=sources, store=store)
        return extract.ExtractSummary(store, str(options["collection"]), "encoders", len(sources), notes=["last"])

    monkeypatch.setattr(extract, "extract_sources", extract_sources)
    summary = import_stamps(package, tmp_path / "s", language="fr", text="st:model", workers=1)
    assert received["sources"] == module.find_stamps(package, "fr") and received["collection"] == "stamps-fr"
    assert getattr(received["choice"], "text") == "st:model" and received["workers"] == 1  # noqa: B009
    assert summary.notes[-1] == "last"
