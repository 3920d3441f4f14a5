"""Extract 2,000 mutated media and caption files: bit flips, truncation, wrong suffixes, zip bombs, 100,000-line captions.

Every file must become an item of the store or a line of its ledger, and none may crash the run or block it for 30 seconds. The
files are generated with fixed seeds.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import sys
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
from results import record

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

from trichord.errors import TrichordError  # noqa: E402
from trichord.extraction.extract import ExtractSummary, extract  # noqa: E402
from trichord.logs import passing_messages  # noqa: E402
from trichord.media import write_video  # noqa: E402
from trichord.store import Store  # noqa: E402
from trichord.store.inspect import verify  # noqa: E402

VTT = "WEBVTT\n\n00:00.000 --> 00:00.500\nstir the pot\n\n00:00.500 --> 00:01.000\nadd salt\n"
SRT = "1\n00:00:00,000 --> 00:00:00,500\nstir the pot\n\n2\n00:00:00,500 --> 00:00:01,000\nadd salt\n"
CSV = "start,end,text\n0,0.5,stir the pot\n0.5,1.0,add salt\n"
JSON = json.dumps({"start": [0, 0.5], "end": [0.5, 1.0], "text": ["stir the pot", "add salt"]})
CAPTIONS = {".vtt": VTT, ".srt": SRT, ".csv": CSV, ".json": JSON}


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return damaged data: bits flipped (anywhere or in the first bytes), cut off, with a gap, or with a repeated part."""
    out = bytearray(data)
    kind = rng.randrange(6)
    if kind == 0:
        for _ in range(rng.choice([1, 10, 200])):
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    elif kind == 1:  # the first bytes hold sizes and counts
        for _ in range(rng.choice([1, 4, 16])):
            out[rng.randrange(min(len(out), 512))] ^= 1 << rng.randrange(8)
    elif kind == 2:
        del out[rng.randrange(len(out)) :]
    elif kind == 3:
        at = rng.randrange(len(out))
        out[at : at + rng.randrange(1, 400)] = b""
    elif kind == 4:
        at = rng.randrange(len(out))
        out[at:at] = out[at : at + rng.randrange(1, 400)]
    else:
        at = rng.randrange(len(out))
        out[at : at + 64] = rng.randbytes(64)
    return bytes(out)


def bases(folder: Path) -> dict[str, bytes]:
    """Write small intact files: media of several kinds, and the irregular ones of the tests."""
    from odd_media import odd_media

    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (10, 8, 12, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    sound = (0.2 * rng.standard_normal(16000)).astype(np.float32)
    files = {}
    for suffix in (".mp4", ".mkv", ".mov"):
        write_video(folder / f"plain{suffix}", pictures, 10, sound)
        files[f"plain{suffix}"] = (folder / f"plain{suffix}").read_bytes()
    for name, odd in odd_media(folder / "odd").items():
        if odd.path.stat().st_size < 2_000_000:
            files[f"{name}{odd.path.suffix}"] = odd.path.read_bytes()
    return files


def make_folder(root: Path, num_media: int, num_captions: int, rng: random.Random) -> int:
    """Write videos with damage next to intact captions, and intact videos with damaged captions; return their number."""
    (root / "bases").mkdir()
    files = bases(root / "bases")
    names = sorted(files)
    suffixes = [".mp4", ".mkv", ".webm", ".avi", ".ts", ".mov"]
    folder = root / "videos"
    folder.mkdir()
    for number in range(num_media):
        name = names[number % len(names)]
        suffix = Path(name).suffix if rng.random() < 0.8 else rng.choice(suffixes)  # a wrong suffix
        data = mutated(files[name], rng)
        if rng.random() < 0.05:
            data = rng.choice([b"", rng.randbytes(5000), VTT.encode(), b"\x00" * 4096])
        (folder / f"m{number:04d}{suffix if suffix in suffixes else '.mkv'}").write_bytes(data)
    for number in range(num_captions):
        (folder / f"c{number:04d}.mp4").write_bytes(files["plain.mp4"])
        suffix = rng.choice(sorted(CAPTIONS))
        text = CAPTIONS[suffix if rng.random() < 0.8 else rng.choice(sorted(CAPTIONS))].encode()
        data = mutated(text, rng)
        if number % 25 == 0:
            data = many_lines(suffix, rng.choice([100_000, 120_000]))
        (folder / f"c{number:04d}{suffix}").write_bytes(data)
    return num_media + num_captions


def many_lines(suffix: str, count: int) -> bytes:
    """Return captions of `count` lines."""
    times = [(i / 1e5, (i + 1) / 1e5) for i in range(count)]
    if suffix == ".csv":
        return ("start,end,text\n" + "".join(f"{a},{b},word {i}\n" for i, (a, b) in enumerate(times))).encode()
    if suffix == ".json":
        columns = {"start": [a for a, _ in times], "end": [b for _, b in times], "text": ["word"] * count}
        return json.dumps(columns).encode()
    comma = "," if suffix == ".srt" else "."
    cue = f"00:00:00{comma}100 --> 00:00:00{comma}900\nword\n\n"
    return (("WEBVTT\n\n" if suffix == ".vtt" else "") + cue * (count // 3)).encode()


def make_table(root: Path, count: int, rng: random.Random) -> int:
    """Write a table of clips with damaged pictures and sounds, one clip per row."""
    from PIL import Image

    folder = root / "clips"
    folder.mkdir()
    pixels = np.random.default_rng(1).integers(0, 255, (64, 96, 3), np.uint8)
    pictures = {}
    for kind in ("png", "jpeg", "gif", "webp", "bmp", "tiff"):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, kind)
        pictures[kind] = buffer.getvalue()
    sound = (root / "bases" / "plain.mp4").read_bytes()
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "audio", "text", "split"])
        for number in range(count):
            kind = rng.choice(sorted(pictures))
            suffix = kind if rng.random() < 0.8 else rng.choice(sorted(pictures))
            damage_sound = rng.random() < 0.3
            picture = pictures[kind] if damage_sound else mutated(pictures[kind], rng)
            (folder / f"p{number}.{suffix}").write_bytes(picture)
            (folder / f"s{number}.mp4").write_bytes(mutated(sound, rng) if damage_sound else sound)
            writer.writerow([f"p{number}", f"p{number}.{suffix}", f"s{number}.mp4", f"a thing {number}", "train"])
    return count


def make_release(root: Path, count: int, rng: random.Random) -> int:
    """Write a HowTo100M release with damaged npz files and zip bombs."""
    folder = root / "release"
    folder.mkdir()
    (folder / "videopaths.txt").write_text("path\n" + "".join(f"v{n}\n" for n in range(count + 1)))
    buffer = io.BytesIO()
    np.savez(buffer, features=np.ones((10, 16), np.float16))
    good = buffer.getvalue()
    for number in range(count + 1):
        (folder / f"v{number}").mkdir()
        data = mutated(good, rng) if number < count else good
        if number % 10 == 0 and number < count:
            data = bomb(rng.choice([1 << 28, 1 << 32]))
        (folder / f"v{number}" / f"v{number}_2d.npz").write_bytes(data)
    captions = {f"v{n}": {"start": [0.0], "end": [5.0], "text": ["stir"]} for n in range(count + 1)}
    (folder / "caption.json").write_text(json.dumps(captions))
    return count


def bomb(num_bytes: int) -> bytes:
    """Return an npz file whose array is far larger than the file: compressed zeros, or a wrong header."""
    header = np.lib.format.magic(1, 0) + (118).to_bytes(2, "little")
    text = f"{{'descr': '<f2', 'fortran_order': False, 'shape': ({num_bytes // 32}, 16), }}".ljust(117) + "\n"
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("features.npy", "w", force_zip64=True) as out,
    ):
        out.write(header + text.encode())
        for _ in range(min(num_bytes, 1 << 28) >> 20):
            out.write(b"\0" * (1 << 20))
    return buffer.getvalue()


class Clock:
    """Records the times of progress lines, and the longest wait for one."""

    def __init__(self) -> None:
        self.at, self.longest_s, self.line, self.between = time.monotonic(), 0.0, "", ("", "")

    def __call__(self, line: str) -> None:
        now = time.monotonic()
        if now - self.at > self.longest_s:
            self.longest_s, self.between = now - self.at, (self.line, line)
        self.at, self.line = now, line


def accounted(store: Path, names: set[str]) -> tuple[int, int, set[str]]:
    """Return the number of stored names, the number of names in the ledger, and the names in neither."""
    opened = Store(store)
    stored = {opened.video_id(i) for i in range(len(opened))}
    sources = [entry["source"] for entry in opened.skipped()]  # `m0001.mp4`, or `table.csv row 3 (p3)`
    listed = {s.rpartition("(")[2].rstrip(")") if s.endswith(")") else Path(s).stem for s in sources}
    return len(names & stored), len(names & listed - stored), names - stored - listed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    count, rng = arguments.count, random.Random(arguments.seed)
    clock = Clock()
    with tempfile.TemporaryDirectory(prefix="trichord-mutations-") as name:
        root = Path(name)
        parts = [int(count * share) for share in (0.6, 0.2, 0.1)]
        total = make_folder(root, parts[0], parts[1], rng)
        total += make_table(root, parts[2], rng)
        num_release = count - total
        total += make_release(root, num_release, rng)
        began = time.monotonic()
        clock.at = began
        kinds: Counter[str] = Counter()
        lost: set[str] = set()
        num_stored = num_listed = 0
        for what, source in (("folder", root / "videos"), ("table", root / "clips" / "table.csv")):
            store = root / f"store_{what}"
            with passing_messages(clock):
                summary = extract(source, store, visual_2d="efficientnet-lite0-64", stall_s=20)
            assert isinstance(summary, ExtractSummary)
            kinds.update(summary.failures)
            if what == "folder":
                names = {path.stem for path in (root / "videos").glob("*") if path.name[0] in "mc"}
            else:
                names = {f"p{n}" for n in range(parts[2])}
            stored, listed, neither = accounted(store, names)
            num_stored, num_listed, lost = num_stored + stored, num_listed + listed, lost | neither
            assert not verify(store), verify(store)[:3]
            for one in sorted(neither)[:20]:
                print("neither stored nor in the ledger:", one)
        from trichord.releases import import_howto100m

        try:
            with passing_messages(clock):
                imported = import_howto100m(root / "release", root / "store_release")
            kinds["unreadable npz"] += imported.num_skipped
            num_stored += imported.num_added + imported.num_present - 1
            num_listed += imported.num_skipped
        except TrichordError as error:
            print(f"import failed: {error}")
        elapsed_s = time.monotonic() - began
        print(f"longest wait between {clock.between}")
    record(
        "bench_extract_mutations.py",
        f"{total} mutated files (seed {arguments.seed})",
        [
            ("crashes of the run", "0", "0"),
            ("stored / in the ledger / neither", f"{num_stored} / {num_listed} / {len(lost)}", "neither: 0"),
            ("longest wait for a line of progress, s", f"{clock.longest_s:.1f}", "at most 30"),
            ("classes", ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())), ""),
            ("total time, s", f"{elapsed_s:.0f}", ""),
        ],
        "A mutated file that can still be decoded is stored, as intended; the notes describe the damage.",
    )


if __name__ == "__main__":
    main()
