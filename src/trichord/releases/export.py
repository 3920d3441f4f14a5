"""Export of a store into published layouts: HowTo100M, YouCook2, WebDataset shards, plain .npy files.

`trichord import` restores the same values from each of them. Data for which a published layout has no place are stored where
published readers do not look: `trichord.json` (the description of the folder), `trichord.jsonl` (HowTo100M) and a key `trichord`
in each entry (YouCook2). Annotated steps are in `trichord.annotations.jsonl` (any layout). The same store gives the same bytes.

Files get their final names when they are complete, and `trichord.json` is marked as complete at the end. If an export is killed,
run it again. Item files are not synced to disk one by one, so run the export again after a power failure too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from trichord.errors import TrichordError
from trichord.files.folders import check_no_links
from trichord.files.paths import accepts_text_paths
from trichord.files.reading import reason_of
from trichord.logs import deprecated_callback
from trichord.releases.export_job import CaptionFiles, ExportSummary, Job
from trichord.releases.exported_steps import write_steps
from trichord.releases.records import MARK, VERSION, read_mark, write_mark, write_words
from trichord.store import Store
from trichord.store.location import Location, location

Layout = Literal["howto100m", "youcook2", "webdataset", "npy"]
SHARD_ITEMS = 1000
SHARD_BYTES = 1 << 30


@deprecated_callback("progress")
@accepts_text_paths
def export_store(
    store: Location,
    out: Path,
    *,
    layout: Layout = "howto100m",
    collection: str = "",
    split: str = "",
    captions: CaptionFiles = "both",
    shard_items: int = SHARD_ITEMS,
    shard_bytes: int = SHARD_BYTES,
) -> ExportSummary:
    """Write a store, or a part of it, in a published layout. `trichord import` reads it back.

    Only one item at a time is in memory. If the export is run again after an interruption, it writes the same files again.

    Args:
        store: Folder or URL of the store.
        out: Folder to write to: new, empty, or that of the same export that did not finish.
        layout: Layout of the files: howto100m (npz files, path lists, caption tables), youcook2 (one pickle per split),
            webdataset (tar shards per split) or npy (a folder of .npy files per stream, index.csv).
        collection: Export only items of this collection. Empty exports all.
        split: Export only items of this split. Empty exports all.
        captions: Caption tables to write in layout howto100m: caption.pickle, caption.json or both.
        shard_items: Largest number of items in a shard in layout webdataset.
        shard_bytes: Size in bytes at which a shard is closed in layout webdataset.

    Raises:
        TrichordError: The store cannot be read, no item is selected, `out` contains other files, an option has no effect in this
            layout, or the disk is full.
    """
    from trichord.releases import export_files, export_packs

    writers: dict[str, Callable[[Job], dict[str, int]]] = {
        "howto100m": export_files.write_howto100m,
        "youcook2": export_packs.write_youcook2,
        "webdataset": export_packs.write_webdataset,
        "npy": export_files.write_npy,
    }
    store, out = location(store), Path(out)
    _check_options(layout, list(writers), captions, shard_items, shard_bytes)
    opened = Store(store)
    items = opened.select(collection or None, split or None)
    if not len(items):
        available = ", ".join(f"{c} {s}".strip() for c, s in opened.collections())
        selection = " ".join(filter(None, (collection, split)))
        raise TrichordError(f"{store}: has no items of {selection}; expected one of: {available}")
    summary = ExportSummary(layout, out)
    job = Job(opened, items, out, summary, captions, shard_items, shard_bytes)
    mark: dict[str, Any] = {"format": "trichord export", "version": VERSION, "layout": layout}
    mark |= {"store": opened.fingerprint, "collection": collection, "split": split, "num_items": len(items)}
    mark |= {"captions": captions, "shard_items": shard_items, "shard_bytes": shard_bytes}
    try:
        claim(out, mark)
        write_mark(out, mark | {"complete": False})
        words = write_words(out, opened)
        num_spans, notes = write_steps(out, opened, items)
        files = writers[layout](job)
        further: dict[str, Any] = {"annotations": num_spans} if num_spans else {}
        further |= {"modalities": opened.modalities} if opened.modalities else {}
        write_mark(out, mark | {"complete": True, "files": files, "words": words} | further)
    except OSError as error:
        where = error.filename or out
        raise TrichordError(
            f"{where}: cannot be written ({reason_of(error)}); check the disk and the path, then run the command again"
        ) from None
    summary.notes += [*notes, *(f"{count:,} {description}" for description, count in job.odd.items())]
    return summary


def claim(out: Path, mark: dict[str, Any]) -> None:
    """Create the folder of an export.

    Raises:
        TrichordError: The folder contains anything other than the same export, complete or not.
    """
    if out.exists() and not out.is_dir():
        raise TrichordError(f"{out}: is not a folder; choose a folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    check_no_links(out)
    if all(path.name == f".{MARK}.partial" for path in out.iterdir()):
        return
    existing = read_mark(out)
    if existing is None:
        raise TrichordError(f"{out}: contains other files; choose a new or empty folder with --out")
    if any(existing.get(name) != value for name, value in mark.items()):
        raise TrichordError(f"{out}: contains another export (see {MARK}); choose a new or empty folder with --out")


def _check_options(layout: str, layouts: list[str], captions: str, shard_items: int, shard_bytes: int) -> None:
    if layout not in layouts:
        raise TrichordError(f"unknown layout '{layout}'; expected one of: {', '.join(layouts)}; correct --layout")
    if captions not in ("both", "pickle", "json"):
        raise TrichordError(f"unknown caption files '{captions}'; expected --captions both, pickle or json")
    if captions != "both" and layout != "howto100m":
        raise TrichordError(f"--captions has no effect in layout {layout}; leave it out")
    if (shard_items, shard_bytes) != (SHARD_ITEMS, SHARD_BYTES) and layout != "webdataset":
        raise TrichordError(f"--shard_items and --shard_bytes have no effect in layout {layout}; leave them out")
    if shard_items < 1 or shard_bytes < 1:
        raise TrichordError(
            f"shards of {shard_items} items and {shard_bytes} bytes are not possible; both numbers must be at least 1"
        )
