"""Files that claim more than they hold: arrays, tensors, archives, JSON, Parquet, pictures; media that name other files."""

from __future__ import annotations

import base64
import gzip
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from export_helpers import some_items, write_store
from release_helpers import SAMPLE
from security_helpers import measured, refusal
from trichord.captions import read_captions
from trichord.evaluation.embedded import Embedded
from trichord.features.weights import read_state
from trichord.files.arrays import load_npy, load_npz_array
from trichord.media import probe, write_video
from trichord.media.images import image
from trichord.media.sampling import FrameSpec
from trichord.nn import MCN
from trichord.releases import IMPORTERS
from trichord.store import Store, annotations
from trichord.store.manifest import part_paths, read_manifest, write_manifest
from trichord.store.shards import map_shard
from trichord.study.files import read_arrays, read_json
from trichord.training.models import load_model, save_model

SMALL: dict[str, Any] = {
    "video_dim": 6,
    "embed_dim": 4,
    "word_dim": 5,
    "reconstruction_dim": None,
    "modalities": ["video"],
}
GROWTH_MB = 400.0  # a bomb claims gigabytes, and 256 MB are always allowed


def lying_npy(shape: str) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.ljust(117) + b"\n" + b"1234"


def test_arrays_that_claim_more_than_they_have(tmp_path: Path) -> None:
    for shape in ("(1000000000000000,)", "(1000000000, 1000000)", f"({10**17}, 9)"):
        (tmp_path / "x.npy").write_bytes(lying_npy(shape))
        assert "does not fit in its" in refusal(lambda: load_npy(tmp_path / "x.npy"))
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
            archive.writestr("../../features.npy", lying_npy(shape))
            archive.writestr("features.npy", lying_npy(shape))
        assert "does not fit in its" in refusal(lambda: load_npz_array(tmp_path / "x.npz", "features"))
        refusal(lambda: read_arrays(tmp_path / "x.npz"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.npy", "x.npz"], "nothing is unpacked"


def bomb(path: Path, gigabytes: int = 1) -> None:
    """Return an npz of zeros that is a thousandth of its unpacked size."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("features.npy", "w", force_zip64=True) as out,
    ):
        num = gigabytes << 28
        out.write(lying_npy(f"({num},)")[:-4])
        for _ in range(gigabytes << 6):
            out.write(bytes(1 << 24))


@pytest.mark.slow
def test_zip_bombs(tmp_path: Path) -> None:
    bomb(tmp_path / "x.npz")
    torch.save({"net": torch.zeros(1 << 27)}, tmp_path / "plain.pth")
    packed = zipfile.ZipFile(tmp_path / "x.pth", "w", zipfile.ZIP_DEFLATED)
    with packed, zipfile.ZipFile(tmp_path / "plain.pth") as plain:
        for member in plain.infolist():
            packed.writestr(member.filename, plain.read(member))
    npz, pth = (f"Path({str(tmp_path / name)!r})" for name in ("x.npz", "x.pth"))
    for prepare, attack in (
        ("from trichord.files.arrays import load_npz_array", f"load_npz_array({npz}, 'features')"),
        ("from trichord.study.files import read_arrays", f"read_arrays({npz})"),
        ("from trichord.nn import MCN", f"MCN.from_published({pth})"),
        ("from trichord.features.weights import read_state", f"import torch; read_state({pth})"),
        ("from trichord.files.pickles import load_pickle", f"load_pickle({pth})"),
    ):
        message, grown_mb = measured(prepare, attack)
        assert message.startswith(str(tmp_path)) and grown_mb < GROWTH_MB, (attack, message, grown_mb)


def with_members(path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez_compressed(path, video=np.ones((2, 3), np.float32), **arrays)  # type: ignore[arg-type]


def test_many_members_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trichord.files.arrays.FREE_BYTES", 100_000)
    path = tmp_path / "x.npz"
    with_members(path, {f"world/geometry/x{i}": np.zeros(99_000, np.uint8) for i in range(3)})
    for read in (
        lambda: read_arrays(path),
        lambda: read_arrays(path, {"video"}.__contains__),
        lambda: Embedded.load(path),
    ):
        assert "refused: its 4 members unpack from" in refusal(read)
    with_members(path, {"x": np.zeros(99_000, np.uint8)})
    assert len(read_arrays(path)["x"]) == 99_000
    with_members(path, {f"x{i}": np.random.default_rng(i).integers(0, 256, 99_000, np.uint8) for i in range(3)})
    assert len(read_arrays(path)) == 4, "three arrays that the file holds in full"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for value in (0, 1):
            with archive.open("video.npy", "w") as member:
                np.lib.format.write_array(member, np.full((2, 3), value, np.float32))
    for read in (read_arrays, Embedded.load):
        assert "two of its members have the same name" in refusal(lambda read=read: read(path))  # type: ignore[misc]


def test_one_long_text_among_many(tmp_path: Path) -> None:
    texts = ["x" * 100_000] + [str(i) for i in range(5_000)]
    embedded = Embedded.of({"video": np.ones((5_001, 2))}, source="x.npz")
    for part in ({"ids": texts}, {"videos": texts}, {"captions": texts}, {"labels": {"class": texts}}):
        assert "has 100,000 characters" in refusal(lambda part=part: embedded.but(**part))  # type: ignore[misc]
    path = tmp_path / "x.safetensors"
    ids = {"ids": json.dumps(texts)}
    safetensors.torch.save_file({"video": torch.ones(5_001, 2)}, path, ids)
    assert "has 100,000 characters" in refusal(lambda: Embedded.load(path))


def test_annotations_that_unpack_to_more_than_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trichord.files.arrays.FREE_BYTES", 1_000_000)
    monkeypatch.setattr("trichord.files.arrays.LARGEST_RATIO", 20)
    path = tmp_path / "annotations.parquet"
    for text, count, message in (
        ("x" * 2_000, 10_000, "its column text unpacks to"),
        ("", 300_000, "it claims 300,000 rows"),
    ):
        row = {"collection": "c", "video_id": "v", "task": "t", "step": 0, "text": text, "start_s": 0.0, "end_s": 1.0}
        columns = {name: pa.array([value] * count, annotations._SCHEMA.field(name).type) for name, value in row.items()}
        pq.write_table(pa.table(columns, schema=annotations._SCHEMA), path)
        assert message in refusal(lambda: annotations._rows(path))


def packed_safetensors(header: bytes | dict[str, Any], data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


TENSORS: dict[str, bytes] = {
    "a length of 2**60": packed_safetensors({}, length=1 << 60),
    "a length of 2**64 - 1": packed_safetensors({}, length=(1 << 64) - 1),
    "beyond the file": packed_safetensors({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}, b"1234"),
    "overlapping": packed_safetensors({n: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for n in "ab"}, bytes(8)),
    "shape beyond the bytes": packed_safetensors({"a": {"dtype": "F32", "shape": [1 << 50], "data_offsets": [0, 4]}}, bytes(4)),
    "an overflow": packed_safetensors({"a": {"dtype": "F32", "shape": [1 << 62, 8], "data_offsets": [0, 0]}}),
    "backwards": packed_safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, bytes(4)),
    "deep": packed_safetensors(b"[" * 100_000),
    "digits": packed_safetensors(b'{"a": ' + b"9" * 5000 + b"}"),
}  # fmt: skip


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_claim_more_than_they_have(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(TENSORS[name])
    for read in (map_shard, MCN.from_published, read_state):
        refusal(lambda read=read: read(tmp_path / "x.safetensors"))  # type: ignore[misc]


def test_models_larger_than_their_weights_are_refused(tmp_path: Path) -> None:
    save_model(tmp_path, MCN(**SMALL), trained=("video",), visual_streams=("visual_2d",), settings={}, extra={})
    described = json.loads((tmp_path / "model.json").read_text())
    for key in ("sha256", "weights_sha256"):
        described.pop(key)  # an attacker has no reason to keep them
    for change in (
        {"video_dim": 10**9},
        {"embed_dim": 10**12},
        {"embed_dim": 10**30},
        {"video_dim": -1},
        {"modalities": 3},
    ):
        changed = {**described, "format": 1, "arguments": {**described["arguments"], **change}}
        (tmp_path / "model.json").write_text(json.dumps(changed))
        refusal(lambda: load_model(tmp_path))


@pytest.mark.parametrize("state", [
    {"GU_video.fc.weight": torch.zeros(1).expand(10**6, 10**6), "GU_video.fc.bias": torch.zeros(1).expand(10**6)},
    {"GU_video.fc.weight": torch.empty(10**6, 10**6, device="meta")},
    {"GU_video.fc.weight": torch.eye(2).to_sparse()},
])  # fmt: skip
def test_checkpoints_that_claim_more_than_they_have(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "x.pth")
    refusal(lambda: MCN.from_published(tmp_path / "x.pth"))
    assert "not a dense tensor that owns all its numbers" in refusal(lambda: read_state(tmp_path / "x.pth"))


def test_a_checkpoint_whose_product_is_large_is_refused_before_it_has_memory(tmp_path: Path) -> None:
    fc = {"GU_video.fc.weight": torch.zeros(10**5, 1), "GU_video.cg.fc.weight": torch.zeros(1, 10**5)}
    safetensors.torch.save_file(fc, tmp_path / "x.safetensors")
    assert "does not fit the published" in refusal(lambda: MCN.from_published(tmp_path / "x.safetensors"))


JSON = {
    "deep": "[" * 100_000,
    "digits": "9" * 5000,
    "deep objects": '{"a":' * 100_000,
    "odd": '{"a": NaN, "b": 1e999, "c": -Infinity}',
}


@pytest.mark.parametrize("name", JSON)
def test_json_bombs(name: str, tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    path.write_text(JSON[name])
    refusal(lambda: read_captions(path))
    if name != "odd":
        refusal(lambda: read_json(path))
    root = Path(shutil.copytree(SAMPLE, tmp_path / "release"))
    (root / "caption.pickle").unlink()
    shutil.copy(path, root / "caption.json")
    refusal(lambda: IMPORTERS["howto100m"](root, tmp_path / "store", SAMPLE / "word2vec.bin"))
    (tmp_path / "model").mkdir()
    shutil.copy(path, tmp_path / "model" / "model.json")
    refusal(lambda: load_model(tmp_path / "model"))


def test_rows_that_unpack_to_more_than_they_are(tmp_path: Path) -> None:
    """A text is stored once and referenced ten thousand times."""
    write_store(tmp_path / "s", some_items(1))
    path = part_paths(tmp_path / "s")[0]
    table = pq.read_table(path)
    for name in ("collection", "video_id"):
        long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(10_000, np.int32)), pa.array(["x" * 1_000_000]))
        many = pa.table({n: [table.column(n)[0].as_py()] * 10_000 for n in table.column_names}, schema=table.schema)
        at = table.column_names.index(name)
        packed = many.set_column(at, pa.field(name, long.type), long).replace_schema_metadata(table.schema.metadata)
        pq.write_table(packed, path, compression="zstd")
        assert path.stat().st_size < 1 << 20
        assert f"its column {name} unpacks to 10,000,000,000 bytes" in refusal(lambda: read_manifest(path))


def test_a_store_of_impossible_counts_is_refused(tmp_path: Path) -> None:
    write_store(tmp_path / "s", some_items(1))
    path = part_paths(tmp_path / "s")[0]
    manifest = read_manifest(path)
    columns: dict[str, Any] = {n: c.to_pylist() for n, c in manifest.texts.items()}
    columns |= {n: c.tolist() for n, c in manifest.numbers.items()}
    path.unlink()
    write_manifest(path, {**columns, "caption_end": [2**62], "visual_2d_end": [2**62]}, manifest.info)
    refusal(lambda: Store(tmp_path / "s").caption_spans(0))
    refusal(lambda: Store(tmp_path / "s").rows("visual_2d", 0))


def test_tables_that_unpack_to_more_than_they_are(tmp_path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(3000, np.int32)), pa.array(["x" * 1_000_000]))
    names = [f"{n}" for n in range(3000)]
    pq.write_table(pa.table({"id": names, "image": names, "text": texts}), tmp_path / "t.parquet", compression="zstd")
    prepare = "from trichord.extraction.table import read_table"
    message, grown_mb = measured(prepare, f"read_table(Path({str(tmp_path / 't.parquet')!r}))")
    assert "unpacks to more than" in message and grown_mb < 2 * GROWTH_MB


def test_pictures_that_unpack_to_more_than_they_are(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size)
        + chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
        + chunk(b"IEND", b"")
    )
    (tmp_path / "x.png").write_bytes(png)
    jpeg = bytearray(
        b"\xff\xd8\xff\xc0\x00\x11\x08" + struct.pack(">HH", 65_000, 65_000) + b"\x03\x01\x11\0\x02\x11\1\x03\x11\1"
    )
    (tmp_path / "x.jpg").write_bytes(
        bytes(jpeg + b"\xff\xda\x00\x0c\x03\x01\0\x02\x11\x03\x11\0?\0" + bytes(50) + b"\xff\xd9")
    )
    for name in ("x.png", "x.jpg"):
        path = tmp_path / name
        message = refusal(lambda path=path: image(path, FrameSpec(rate_hz=1, width=8, height=8)))  # type: ignore[misc]
        assert "more than 179 million pixels" in message


def test_pictures_in_svg_read_no_other_files(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    from PIL import Image

    Image.new("RGB", (9, 9), (255, 0, 0)).save(tmp_path / "secret.png")
    link = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"{head}><image width="9" height="9" {name}="{href}"/></svg>'
    spec = FrameSpec(rate_hz=1, width=8, height=8)
    for head, name, href in (
        ("", "href", "secret.png"),
        ("", "href", str(tmp_path / "secret.png")),
        (' xmlns:q="http://www.w3.org/1999/xlink"', "q:href", f"file://{tmp_path}/secret.png"),
        ("", "href", "&#x73;ecret.png"),
        ("", "href", "data:image/svg+xml,<svg/>".replace("<", "&lt;")),
    ):
        (tmp_path / "x.svg").write_text(link.format(head=head, name=name, href=href))
        assert "draws another file" in refusal(lambda: image(tmp_path / "x.svg", spec))
    own = base64.b64encode((tmp_path / "secret.png").read_bytes()).decode()
    (tmp_path / "x.svg").write_text(link.format(head="", name="href", href=f"data:image/png;base64,{own}"))
    assert (image(tmp_path / "x.svg", spec) == (255, 0, 0)).all(), "a picture that it carries itself"
    (tmp_path / "x.svgz").write_bytes(gzip.compress(b" " * (100 << 20)))
    assert "has more than 67,108,864 bytes" in refusal(lambda: image(tmp_path / "x.svgz", spec))
    laughs = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
    (tmp_path / "x.svg").write_text(
        f'<!DOCTYPE x [<!ENTITY a0 "x">{laughs}]><svg xmlns="http://www.w3.org/2000/svg">&a9;</svg>'
    )
    refusal(lambda: image(tmp_path / "x.svg", spec))


def test_media_files_name_no_other_files(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (10, 32, 48, 3), np.uint8)
    write_video(tmp_path / "secret.mp4", pixels, 10, np.zeros(16_000, np.float32))
    assert probe(tmp_path / "secret.mp4").has_video
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
    for name, text in (
        ("concat.mp4", "ffconcat version 1.0\nfile secret.mp4\n"),
        ("list.ffconcat", "ffconcat version 1.0\nfile secret.mp4\n"),
        ("hls.m3u8", playlist.format("secret.mp4")),
        ("hls.mp4", playlist.format(tmp_path / "secret.mp4")),
        ("net.m3u8", playlist.format("http://127.0.0.1:9/x.ts")),
        ("x.sdp", "v=0\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"),
    ):
        (tmp_path / name).write_text(text)
        assert "cannot be opened as a video" in refusal(lambda name=name: probe(tmp_path / name))  # type: ignore[misc]


def test_a_run_folder_that_is_not_ours_is_only_refused(tmp_path: Path) -> None:
    """Folders, pipes and devices stand in for JSON files and arrays."""
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "folder.json").mkdir()
    refusal(lambda: read_json(tmp_path / "folder.json"))
    refusal(lambda: read_json(tmp_path / "nowhere.json"))


def test_a_description_that_no_network_has_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path, MCN(**SMALL), trained=("video",), visual_streams=("visual_2d",), settings={}, extra={})
    described = json.loads((tmp_path / "model.json").read_text())
    described.pop("sha256")
    for change in ({"modalities": ["audio"], "audio_channels": [1, 2]}, {"audio_channels": 3}, {"unknown": 1}):
        changed = {**described, "format": 1, "arguments": {**described["arguments"], **change}}
        (tmp_path / "model.json").write_text(json.dumps(changed))
        assert "not a model description" in refusal(lambda: load_model(tmp_path))
