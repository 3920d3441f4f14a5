"""A model folder: saved bit by bit, sealed, read from the cache of the hub, with a card that the parser of the hub reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard, constants
from safetensors.torch import load_file, save_file

from tiny import VIDEO_DIM, WORDS, word_vectors
from trichord import MCN, Embedder
from trichord.cli import main
from trichord.embedder import embedder as embedder_module
from trichord.embedder import worker
from trichord.embedder.files import embed_file
from trichord.embedder.folder import CONFIG, read_folder
from trichord.embedder.vocabulary import Vocabulary
from trichord.errors import TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.evaluation.ranks import retrieval_ranks
from trichord.media import write_video
from trichord.recipes import load_recipe
from trichord.store import WordVectors
from trichord.store.words import default_word_vectors
from trichord.study.run import run_study
from trichord.training.seals import sealed

pytestmark = pytest.mark.usefixtures("without_chart")


@pytest.fixture(scope="module")
def study(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study")
    recipe = load_recipe(
        "debug",
        training={"tensorboard": False, "max_steps": 2, "device": "cpu"},
        evaluation={"directions": ["t2v", "t2va", "a2v"]},
    )
    run_study(tiny_store, out, ["av>t", "avt"], [0], recipe)
    return out


def stage_of(study: Path, chain: str) -> Path:
    return next(path for path in (study / "stages").iterdir() if path.name.startswith(f"{chain}."))


@pytest.fixture(scope="module")
def exported(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "my_model"
    Embedder.from_run(stage_of(study, "av-t")).save_pretrained(folder, model_card_kwargs={"license": "cc-by-4.0"})
    return folder


def inputs() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "video": [np.abs(rng.standard_normal((t, VIDEO_DIM))).astype(np.float32) for t in (1, 4)],
        "audio": [rng.uniform(-80, 0, (40, t)).astype(np.float32) for t in (30, 700)],
        "text": ["worda wordb", "wordc nothing wordd"],
    }


def encoded(model: Embedder) -> list[np.ndarray]:
    items = inputs()
    return [model.encode_video(items["video"]), model.encode_audio(items["audio"]), model.encode_text(items["text"])]


def test_a_model_is_restored_bit_for_bit(study: Path, exported: Path, tmp_path: Path) -> None:
    before = Embedder.from_run(stage_of(study, "av-t"))
    after = Embedder.from_pretrained(exported)
    for one, two in zip(encoded(before), encoded(after), strict=True):
        assert np.array_equal(one, two)
    assert before.parts.scoring == after.parts.scoring and before.parts.results == after.parts.results
    assert before.parts.trained.settings == after.parts.trained.settings
    after.save_pretrained(tmp_path / "my_model", model_card_kwargs={"license": "cc-by-4.0"})
    names = {path.name for path in exported.iterdir()}
    assert names == {"README.md", "config.json", "model.json", "model.safetensors", "words.safetensors"}
    for name in names:
        assert (tmp_path / "my_model" / name).read_bytes() == (exported / name).read_bytes(), name


def test_no_path_of_this_machine_is_in_it(study: Path, exported: Path) -> None:
    for path in exported.iterdir():
        assert str(study).encode() not in path.read_bytes() and b"/tmp" not in path.read_bytes(), path.name


def test_evaluate_accepts_an_exported_model(
    exported: Path, study: Path, tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run, name in ((exported, "a.json"), (stage_of(study, "av-t"), "b.json")):
        assert main(["evaluate", str(run), "--store", str(tiny_store), "--out", str(tmp_path / name)]) == 0
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()


def rewritten(change: Callable[[dict[str, Any]], None], *, seal: bool = True) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = json.loads((folder / CONFIG).read_text())
        change(content)
        content = sealed({k: v for k, v in content.items() if k != "sha256"}) if seal else content
        (folder / CONFIG).write_text(json.dumps(content))

    return damage


def other_weights(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, folder / "model.safetensors")


def other_words(folder: Path) -> None:
    from safetensors import safe_open

    with safe_open(folder / "words.safetensors", framework="pt") as file:
        vectors, metadata = file.get_tensor("vectors"), file.metadata()
    save_file({"vectors": vectors + 1}, folder / "words.safetensors", metadata)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / CONFIG).unlink(), r"the folder does not contain a model \(config.json is missing\)"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"not contain a model \(model.safetensors is missing\)"),
        (lambda folder: (folder / CONFIG).write_text("{"), "config.json: .*get the model again"),
        (rewritten(lambda c: c["clips"].update(max_words=3), seal=False), "it has changed since it was written"),
        (rewritten(lambda c: c.update(format=2)), "the file has the format 2, but this version reads format 1; update trichord"),
        (rewritten(lambda c: c.pop("encoders")), "the entry 'encoders' is missing or invalid"),
        (rewritten(lambda c: c["clips"].update(cosine=1)), "clips.cosine has the invalid value 1"),
        (rewritten(lambda c: c["clips"].update(max_words=True)), "clips.max_words has the invalid value True"),
        (rewritten(lambda c: c["clips"].update(audio_frames=10**12)), "clips.audio_frames has the invalid value 1000000000000"),
        (rewritten(lambda c: c["clips"].update(audio_pad_db=float("nan"))), "clips.audio_pad_db has the invalid value nan"),
        (rewritten(lambda c: c["encoders"].update(visual_2d={})), "an encoder has no name"),
        (rewritten(lambda c: c["words"].pop("source")), "the description of the words is incomplete"),
        (rewritten(lambda c: c["words"].update(sha256=None, dim=3)), "the words and the vectors do not fit together"),
        (lambda folder: (folder / "words.safetensors").write_bytes(b"{}"), "words.safetensors: .*get the model again"),
        (other_weights, "the weights have changed"),
        (other_words, "words.safetensors: .*it has changed since it was written.*get the model again"),
    ],
)  # fmt: skip
def test_damage_is_an_error_of_one_line(
    exported: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(exported, folder)
    damage(folder)
    with pytest.raises(TrichordError, match=message) as caught:
        Embedder.from_pretrained(folder)
    assert "\n" not in str(caught.value)


# ---- the hub


def cached(cache: Path, exported: Path, repo: str = "me/model", commit: str = "a" * 40) -> None:
    """The cache of the hub as a download leaves it."""
    root = cache / f"models--{repo.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    (root / "blobs").mkdir()
    (root / "snapshots" / commit).mkdir(parents=True)
    for path in exported.iterdir():
        shutil.copy(path, root / "blobs" / path.name)
        (root / "snapshots" / commit / path.name).symlink_to(f"../../blobs/{path.name}")


def test_a_repository_is_read_from_the_cache(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cached(tmp_path, exported)
    model = Embedder.from_pretrained("me/model", cache_dir=tmp_path)
    again = Embedder.from_pretrained("me/model", cache_dir=tmp_path, revision="a" * 40)
    for one, two in zip(encoded(model), encoded(again), strict=True):
        assert np.array_equal(one, two)
    with pytest.raises(TrichordError, match="hf download me/model --revision v2"):
        Embedder.from_pretrained("me/model", cache_dir=tmp_path, revision="v2")


def test_a_missing_folder_is_an_immediate_error(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(TrichordError, match="HF_HUB_OFFLINE disables downloads; run `hf download me/other`"):
        Embedder.from_pretrained("me/other", cache_dir=tmp_path)
    for name in ("./none", tmp_path / "none", "/none/at/all", "./" + "n" * 300):
        with pytest.raises(TrichordError, match="does not exist; check the path, or give OWNER/NAME on the hub"):
            Embedder.from_pretrained(name)
    with pytest.raises(TrichordError, match="is a folder, so revision 'v1' has no effect"):
        Embedder.from_pretrained(exported, revision="v1")


def test_the_mixin_pushes_the_whole_folder(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is replaced by a function that records what would be uploaded."""
    sent: dict[str, Any] = {}

    class Hub:
        def __init__(self, token: str | None = None) -> None:
            sent["token"] = token

        def create_repo(self, repo_id: str, private: bool | None, exist_ok: bool) -> Any:
            sent["private"] = private
            return type("Repo", (), {"repo_id": repo_id})

        def upload_folder(self, folder_path: Path, **options: Any) -> str:
            sent["files"] = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
            return "the commit"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Hub)
    model = Embedder.from_pretrained(exported)
    url = model.push_to_hub("me/my_model", private=True, model_card_kwargs={"license": "cc-by-4.0"})
    assert url == "the commit" and sent["private"] is True
    assert sent["files"] == {path.name: path.read_bytes() for path in exported.iterdir()}


# ---- the card


def test_the_card_has_the_studys_figures_in_the_hubs_form(study: Path, exported: Path) -> None:
    card = ModelCard.load(exported / "README.md", ignore_metadata_errors=False)
    assert (card.data.library_name, card.data.license, card.data.model_name) == ("trichord", "cc-by-4.0", "my_model")
    assert {"trichord", "modality:video", "modality:audio", "modality:text"} <= set(card.data.tags)
    rows = json.loads((study / "orders" / "av-t" / "seed-0" / "results.json").read_text())["benchmarks"][0]["results"]
    figures = {(r.dataset_args["direction"], r.metric_type): r for r in card.data.eval_results}
    assert len(rows) == 3 and len(figures) == 12
    for row in rows:
        for metric, key in (
            ("recall_at_1", "r1"),
            ("recall_at_5", "r5"),
            ("recall_at_10", "r10"),
            ("median_rank", "medr"),
        ):
            result = figures[row["direction"], metric]
            assert result.metric_value == pytest.approx(row[key], abs=1e-4) and result.dataset_type == row["benchmark"]
            how = result.dataset_args
            assert (how["protocol"], result.metric_args["num"], how["gallery"]) == (
                row["benchmark"],
                row["num_queries"],
                row["num_gallery"],
            )
    assert figures["t2va", "recall_at_1"].task_type == "text-to-video-audio-retrieval"
    recall = next(r for r in rows if r["direction"] == "t2v")["r10"]
    line = next(line for line in card.text.split("\n") if "| t2v, sum |" in line and "| R@10 |" in line)
    low, high = line.split(r"\[")[1].split(r"\]")[0].split(", ")
    assert f" {recall:.2f} " in line and float(low) < recall < float(high) and "AV→T" in card.text


def test_figures_of_an_evaluation_take_their_place(
    study: Path, tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, results, out = stage_of(study, "avt"), tmp_path / "results", tmp_path / "model"
    assert main(["evaluate", str(run), "--store", str(tiny_store), "--directions", "v2t", "--out", str(results)]) == 0
    assert main(["export-model", str(run), "--out", str(out), "--results", str(results), "--name", "a|b <i>"]) == 0
    printed = capsys.readouterr().out
    assert "4 figures in the model card" in printed and "the model card does not state a license" in printed
    card = ModelCard.load(out / "README.md", ignore_metadata_errors=False)
    assert {r.dataset_config for r in card.data.eval_results} == {
        "retrieval:tiny, v2t, sum"
    } and card.data.license is None
    assert r"# a\|b \<i\>" in card.text and "not stated at the export" in card.text
    first = Embedder.from_pretrained(out).parts.results[0]
    rows = json.loads((results / "results.json").read_text())["benchmarks"][0]["results"]
    assert first["value"] == rows[0]["r1"] and first["low"] <= first["value"] <= first["high"]
    with pytest.raises(TrichordError, match="evaluate again with --out"):
        Embedder.from_run(run, results=tmp_path / "none")
    for text, count in (((out / "README.md").read_text(), 4), ("# Written by hand\n", 0), ("---\n{[\n---\n", 0)):
        (out / "README.md").write_text(text)
        assert main(["export-model", str(run), "--out", str(out)]) == 0  # a card that is there is left alone
        printed = capsys.readouterr()
        assert f"  {count} figures in the model card\n" in printed.out and not printed.err


# ---- words, published checkpoints, commands


def test_a_vocabulary_is_extended(tmp_path: Path) -> None:
    whole = default_word_vectors({"egg", "soup"})
    known = WordVectors(["egg"], whole.vectors[[whole.words.index("egg")]], whole.source, True)
    egg, soup = (whole.vectors[whole.words.index(word)] for word in ("egg", "soup"))
    vectors = Vocabulary(known).vectors_of([["Egg, zzqqxx"], ["soup", "EGG"], ["zzqqxx"]])
    assert np.array_equal(vectors[0], [egg]) and np.array_equal(vectors[1], [soup, egg]) and vectors[2].shape == (0, 50)
    other = Vocabulary(WordVectors(["egg"], known.vectors, "GloVe 6B 50-d of another day", True))
    assert [len(rows) for rows in other.vectors_of([["egg soup"]])] == [1], "a table that it is not from is not asked"
    (tmp_path / "words.txt").write_text("soup " + " ".join(["0.5"] * 50) + "\n")
    with pytest.raises(TrichordError, match="the model reads GloVe 6B .*; give that table, or omit it"):
        Vocabulary(known, tmp_path / "words.txt").vectors_of([["soup"]])


def test_a_published_checkpoint_becomes_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    network = MCN(4096, 8, 12, 6, audio_channels=(4, 4, 8, 8), mask_padding=False)
    torch.save(network.to_published(), tmp_path / "e1.pth")
    table = word_vectors()
    lines = [
        f"{word} " + " ".join(map(repr, vector.tolist()))
        for word, vector in zip(table.words, table.vectors, strict=True)
    ]
    (tmp_path / "w2v.txt").write_text(f"{len(WORDS)} 12\n" + "\n".join(lines) + "\n")
    published = Embedder.from_published(tmp_path / "e1.pth", words=tmp_path / "w2v.txt")
    two_streams = {"visual_2d": np.ones((3, 2048), np.float32), "visual_3d": np.ones((2, 2048), np.float32)}
    text = published.encode_text("worda wordb")
    published.save_pretrained(tmp_path / "model")
    again = Embedder.from_pretrained(tmp_path / "model")
    assert np.array_equal(again.encode_text("worda wordb"), text), "the words that it met went along"
    assert np.array_equal(again.encode_video(two_streams), published.encode_video(two_streams))
    assert again.parts.encoders["visual_2d"]["name"] == "resnet152" and again.parts.scoring.audio_pad_db == 0.0
    with pytest.raises(TrichordError, match="does not know any word of 'wordc'"):
        again.encode_text("wordc")
    whole = Embedder.from_pretrained(tmp_path / "model", words=tmp_path / "w2v.txt")
    assert np.array_equal(whole.encode_text("wordc"), published.encode_text("wordc"))
    with pytest.raises(TrichordError, match=r"features \{name: \(T, F\)\} of visual_2d, visual_3d"):
        again.encode_video(np.ones((3, 4096), np.float32))
    sound = np.random.default_rng(0).uniform(-80, 0, (40, 30)).astype(np.float32)
    padded = torch.zeros(1, 40, again.parts.scoring.audio_frames)  # by 0 dB, which this network does not leave out
    padded[0, :, :30] = torch.from_numpy(sound)
    by_hand = again.model.embed(audio=padded, audio_frames=torch.tensor([30]))["audio"].detach().numpy()
    np.testing.assert_allclose(again.encode_audio(sound), by_hand, rtol=1e-5, atol=1e-6)
    silent = Embedder.from_published(tmp_path / "e1.pth")
    with pytest.raises(TrichordError, match="was saved without its words; load it with words=TABLE"):
        silent.encode_text("worda")


def test_the_store_that_a_run_names_must_be_there(study: Path, tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    shutil.copytree(stage_of(study, "avt"), stage)
    with pytest.raises(
        TrichordError, match="does not record the store that it was trained on; give the store with --store"
    ):
        Embedder.from_run(stage)


def test_evaluate_reads_the_output_of_embed(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = (0.1 * np.random.default_rng(0).standard_normal(16000 * 7)).astype(np.float32)
    for name in ("a", "b"):
        write_video(tmp_path / "clips" / f"{name}.mp4", np.zeros((14, 64, 64, 3), np.uint8), 2, noise)
        (tmp_path / "clips" / f"{name}.vtt").write_text(
            "WEBVTT\n\n00:00.000 --> 00:03.000\nworda\n\n00:03.000 --> 00:06.000\nwordb\n"
        )
    (tmp_path / "clips" / "broken.mp4").write_bytes(b"no video")
    model = Embedder.from_pretrained(exported)
    monkeypatch.setattr(
        model, "encode_video", lambda *_, **__: np.ones((1, model.dim), np.float32)
    )  # its store has no encoder
    monkeypatch.setattr(embedder_module.Embedder, "from_pretrained", lambda *_, **__: model)
    monkeypatch.setattr(
        worker, "Worker", lambda load: nullcontext(lambda path, window_s: embed_file(load(), path, window_s))
    )
    out = tmp_path / "clips.npz"
    words = ["embed", str(exported), str(tmp_path / "clips"), "--out", str(out), "--window-s", "3"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "1 of 3 files were left out" in printed
    assert (
        "4 clips (4 of video, 4 of audio, 4 of text)" in printed and "left out: " in printed and "broken.mp4" in printed
    )
    embedded = Embedded.load(out)
    assert embedded.end_s.tolist() == pytest.approx([3.0, 7.0] * 2, abs=0.1) and embedded.captions is not None
    assert embedded.captions.tolist() == ["worda", "wordb"] * 2
    assert np.array_equal(embedded.embeddings["text"][1], model.encode_text("wordb")[0])
    file = tmp_path / "clips" / "a.mp4"
    assert np.array_equal(embedded.embeddings["audio"][0], model.encode_audio(file, start_s=0.0, end_s=3.0)[0])
    assert main(["evaluate", "--embeddings", str(out), "--directions", "t2a"]) == 0
    assert retrieval_ranks(embedded.embeddings["text"], embedded.embeddings["audio"]).num_gallery == 4
    assert main(["embed", str(exported), str(tmp_path / "clips" / "broken.mp4"), "--out", str(out)]) == 2
    alone = capsys.readouterr()
    assert "cannot be opened" in alone.err and "left out" not in alone.out, "said once"
    assert main([*words[:-4], "--out", str(tmp_path / "x.csv")]) == 2
    assert "a file of embeddings must be .npz or .safetensors" in capsys.readouterr().err


def test_a_folder_without_words_says_how_to_add_them(exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "model")
    rewritten(lambda content: content.update(words=None))(tmp_path / "model")
    assert read_folder(tmp_path / "model").vocabulary is None
    with pytest.raises(TrichordError, match="load it with words=TABLE"):
        Embedder.from_pretrained(tmp_path / "model").encode_text("worda")
