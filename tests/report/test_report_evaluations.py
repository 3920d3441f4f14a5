"""The report of evaluations compared with figures that are computed independently."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from evaluation_report_helpers import (
    arrays_of,
    copy,
    edit,
    evaluation_text,
    planted,
    seconds,
    write_folder,
    write_orders,
)
from report_helpers import write_study_folder
from scoring_helpers import read_ranks
from trichord.cli import main
from trichord.errors import TrichordError
from trichord.evaluation.statistics import mean_interval, median_rank_interval
from trichord.modality import Direction
from trichord.recipes import load_recipe
from trichord.report.analysis import analyse
from trichord.report.contents import build_evaluations
from trichord.report.queries import clearest_duel, curve_of
from trichord.report.systems import read_systems
from trichord.report.write import write_evaluations, write_reports
from trichord.study.run import run_study

pytestmark = pytest.mark.usefixtures("without_chart")


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "tables" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def hits(embedded: Any, query: str, target: str, k: int) -> np.ndarray:
    """Return the hits of each query that has both sides, by loops over float64 scores."""
    q, t = embedded.embeddings[query].astype(np.float64), embedded.embeddings[target].astype(np.float64)
    both = [i for i in range(len(q)) if embedded.valid[query][i] and embedded.valid[target][i]]
    out = []
    for i in both:
        own = q[i] @ t[i]
        out.append(float(sum(q[i] @ t[j] > own for j in both) < k))
    return np.array(out)


# ---- one system


def test_one_evaluation_has_every_form(weak: Path, tmp_path: Path) -> None:
    summary = write_evaluations([weak], tmp_path / "r")
    names = {path.name for path in (tmp_path / "r").iterdir()}
    assert names == {"report.html", "report.md", "report.tex", "report.json", "tables", "figures"}
    page = (tmp_path / "r" / "report.html").read_text()
    assert "<script" not in page and not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)
    assert "Held-out clips of the store, or embeddings from a file." in page, "the protocol's paragraph"
    assert "Scored with: fusion rule sum, policy for missing clips drop, tie policy expected." in page
    assert "up to 6 queries lack a modality and are left out" in page.replace("Up to", "up to")
    assert "Which systems differ" not in page, "nothing to compare"
    assert (
        f"trichord evaluate --embeddings {weak}.npz" in page
        and "--benchmark retrieval zero-shot-classification" in page
    )
    assert summary.page.is_file() and "R@10" in str(summary) and "chance is" in str(summary)


@pytest.mark.usefixtures("undrawn")
def test_figures_are_those_of_the_embeddings(weak: Path, tmp_path: Path) -> None:
    write_evaluations([weak], tmp_path / "r", level=0.9)
    embedded = planted(1.6, 1, silent=6)
    rows = {row["of"]: row for row in table(tmp_path / "r", "figures-retrieval")}
    assert set(rows) == {"t2v", "v2a"}
    for code, (query, target) in {"t2v": ("text", "video"), "v2a": ("video", "audio")}.items():
        for k in (1, 5, 10):
            own = hits(embedded, query, target, k)
            share, n, z = own.mean(), len(own), stats.norm.isf(0.05)
            row = rows[code]
            assert float(row[f"R@{k}"]) == pytest.approx(100 * share)
            assert float(row[f"R@{k} chance"]) == pytest.approx(100 * k / n)
            half = stats.t.isf(0.05, n - 1) * math.sqrt(own.var(ddof=1) / n)
            effective = min(
                z**2 * share * (1 - share) / half**2, n
            )  # Wilson with the queries that have that half width
            centre = (share + z**2 / (2 * effective)) / (1 + z**2 / effective)
            reach = z * math.sqrt(share * (1 - share) / effective + z**2 / (4 * effective**2)) / (1 + z**2 / effective)
            ends = float(row[f"R@{k} low"]), float(row[f"R@{k} high"])
            assert ends == pytest.approx((100 * (centre - reach), 100 * (centre + reach)), abs=1e-6)
        assert int(rows[code]["units"]) == n and int(rows[code]["gallery"]) == n
    labelled = {row["of"]: row for row in table(tmp_path / "r", "figures-zero-shot-classification")}
    video, text = (embedded.embeddings[m].astype(np.float64) for m in ("video", "text"))
    names = [str(embedded.captions[i]) for i in range(4)] if embedded.captions is not None else []
    right = [names[int(np.argmax(video[i] @ text[:4].T))] == embedded.labels["class"][i] for i in range(60)]
    assert float(labelled["video, class"]["top-1"]) == pytest.approx(100 * np.mean(right))
    assert float(labelled["video, class"]["top-1 chance"]) == pytest.approx(25)


@pytest.mark.usefixtures("undrawn")
def test_a_direction_comes_first(weak: Path) -> None:
    systems = read_systems([weak])
    assert [t.name for t in analyse(systems)[0].targets] == ["t2v", "v2a"]
    assert [t.name for t in analyse(systems, direction=Direction.parse("v2a"))[0].targets] == ["v2a", "t2v"]
    assert (
        build_evaluations(systems, direction=Direction.parse("v2a"))
        .summary[0]
        .startswith("Retrieval on any clips, v2a, R@10: ")
    )
    with pytest.raises(TrichordError, match="no benchmark was scored in direction 'a2t'; choose one of t2v, v2a"):
        build_evaluations(systems, direction=Direction.parse("a2t"))


def test_recall_at_every_k_is_that_of_the_rows(weak: Path) -> None:
    (bench, *_) = analyse(read_systems([weak]))
    for target in bench.targets:
        curve = curve_of(bench.models["weak.npz"], target)
        assert curve is not None
        k, recall, chance = curve
        own = dict(zip(k.tolist(), recall.tolist(), strict=True))
        for at in (1, 5, 10):
            assert own[at] == pytest.approx(target.figures["weak.npz"][f"R@{at}"].estimate)
        assert (np.diff(recall) >= 0).all() and recall[-1] == 100 and chance[-1] == 100
        assert chance == pytest.approx(100 * k / k[-1])
    assert read_ranks(weak / "queries.npz", "retrieval", "t2v").num_gallery == 60, "still read as a study's"


def test_queries_that_count_as_errors_are_never_found(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "e", planted(0.7, silent=6), ("retrieval",), missing="miss")
    (bench,) = analyse(read_systems([folder]))
    t2v, v2a = (curve_of(bench.models["e.npz"], target) for target in bench.targets)
    assert t2v is not None and v2a is not None
    assert t2v[1][-1] == 100 and v2a[1][-1] == pytest.approx(90)
    rank = bench.targets[1].figures["e.npz"]["MedR"]
    own = np.concatenate([read_ranks(folder / "queries.npz", "retrieval", "v2a").rank(), np.full(6, 60.0)])
    assert (rank.estimate, rank.low) == (np.median(own), median_rank_interval(own).low)


# ---- comparison


@pytest.mark.usefixtures("undrawn")
def test_two_models_are_compared_over_the_same_queries(weak: Path, strong: Path, tmp_path: Path) -> None:
    summary = write_evaluations([weak, strong], tmp_path / "r")
    embedded = {"weak.npz": planted(1.6, 1, silent=6), "strong.npz": planted(0.7, 2, silent=6)}
    rows = table(tmp_path / "r", "differences")
    assert len(rows) == 5, "two directions; video, audio and both"
    sides = {"t2v": ("text", "video"), "v2a": ("video", "audio")}
    ps = []
    for row in rows:
        assert row["systems"] == "weak.npz − strong.npz"
        ps.append(float(row["p"]))
        if (code := row["of"].partition(",")[0]) in sides:
            one, two = (hits(embedded[name], *sides[code], 10) for name in ("weak.npz", "strong.npz"))
            n, mean = len(one), (one - two).mean()
            variance = (one - two).var(ddof=1) / n + 2 / (n * (n - 1))  # one more discordant query each way
            assert float(row["difference"]) == pytest.approx(100 * mean)
            assert float(row["p"]) == pytest.approx(2 * stats.t.sf(abs(mean) / math.sqrt(variance), n - 1), rel=1e-6)
            half = stats.t.isf(0.025, n - 1) * math.sqrt(variance)
            assert float(row["difference low"]) == pytest.approx(100 * (mean - half), abs=1e-4)
            assert int(row["seeds units"]) == n
    highest = 0.0
    for rank, place in enumerate(np.argsort(ps)):  # Holm over all pairs of all benchmarks
        highest = max(highest, min(1.0, ps[place] * (len(ps) - rank)))
        assert float(rows[place]["p, Holm"]) == pytest.approx(highest)
    text = str(summary)
    assert (
        "the highest is strong.npz" in text
        and "Significant differences between trained models: strong.npz is ahead of weak.npz" in text
    )
    assert "the comparison is between trained models, not between methods" in text
    page = (tmp_path / "r" / "report.html").read_text()
    assert "Holm's correction covers all pairs in all of these rows" in page.replace("&#39;", "'")
    assert 'class="number-cell strong"' not in page, "one seed: nobody wins, and no two methods are told apart"
    lines = [row for row in table(tmp_path / "r", "figures-retrieval") if row["of"] == "t2v"]
    assert [row["system"] for row in lines] == ["weak.npz", "strong.npz", "chance"]
    assert float(lines[2]["R@10"]) == pytest.approx(100 / 6)


def test_query_by_query(weak: Path, strong: Path) -> None:
    bench = analyse(read_systems([weak, strong]))[0]
    duel = clearest_duel(bench)
    assert duel is not None and (duel.a, duel.b) == ("strong.npz", "weak.npz") and duel.ranks
    code = duel.target
    rank_a, rank_b = (read_ranks(f / "queries.npz", "retrieval", code).rank() for f in (strong, weak))
    wins = sum(a < b for a, b in zip(rank_a, rank_b, strict=True))
    losses = sum(a > b for a, b in zip(rank_a, rank_b, strict=True))
    assert (duel.wins, duel.ties, duel.losses) == (wins, len(rank_a) - wins - losses, losses)
    better_a, better_b = duel.furthest(3)
    ratio = rank_b / rank_a
    assert ratio[better_a[0]] == ratio.max() and (len(better_b) == 0 or ratio[better_b[0]] == ratio.min())
    text = planted(1.6, 1, silent=6).captions
    assert text is not None and duel.captions.tolist() == [str(c) for c in text[: len(rank_a)]]


def test_classes_unit_by_unit(weak: Path, strong: Path) -> None:
    bench = analyse(read_systems([weak, strong]))[1]
    duel = clearest_duel(bench)
    assert duel is not None and not duel.ranks
    each = [arrays_of(f)[f"zero-shot-classification/{duel.target}/top-1/each"] for f in (strong, weak)]
    assert (duel.wins, duel.losses) == (int((each[0] > each[1]).sum()), int((each[0] < each[1]).sum()))
    unit = duel.furthest(1)[0][0]
    assert re.match("(stir|fry|cut|boil): ", str(duel.captions[unit])), "the class, then the caption"


@pytest.mark.usefixtures("undrawn")
def test_without_captions_units_have_their_names(tmp_path: Path) -> None:
    folders = [
        write_folder(tmp_path / name, planted(noise, captions=False), ("retrieval",))
        for name, noise in (("a", 0.6), ("b", 1.8))
    ]
    write_evaluations(folders)
    rows = table(tmp_path / "a" / "report", "units-retrieval")
    assert rows and all(re.fullmatch(r"clip\d+", row["id"]) and "caption" not in row for row in rows)


@pytest.mark.usefixtures("undrawn")
def test_seeds_of_orders(orders: Path, tmp_path: Path) -> None:
    summary = write_reports([orders], tmp_path / "r")
    each = {
        order: np.stack([arrays_of(orders / order / f"seed-{s}")["retrieval/t2v, sum/R@10/each"] for s in range(3)])
        for order in ("av-t", "vt-a")
    }
    rows = {row["system"]: row for row in table(tmp_path / "r", "figures-retrieval") if row["of"] == "t2v"}
    for order, name in (("av-t", "AV→T"), ("vt-a", "VT→A")):
        wanted = mean_interval(each[order])
        own = tuple(float(rows[name][f"R@10{end}"]) for end in ("", " low", " high"))
        assert own == pytest.approx((wanted.estimate, wanted.low, wanted.high))
        assert own[0] == pytest.approx(100 * each[order].mean())
    assert "VT→A beats every other system" in str(summary) and "one seed" not in str(summary)
    difference = next(row for row in table(tmp_path / "r", "differences") if row["of"] == "t2v, R@10")
    assert float(difference["difference"]) == pytest.approx(100 * (each["av-t"] - each["vt-a"]).mean())
    assert difference["seeds"] == "3"
    page = (tmp_path / "r" / "report.html").read_text()
    assert "VT→A" in page
    strong = re.findall(r'class="number-cell strong">([^<]*)', page.partition("Which systems differ</h2>")[0])
    assert strong == [row_text(rows["VT→A"]) for rows in by_target(tmp_path / "r")], (
        "the winner is marked, and it alone"
    )


def by_target(folder: Path) -> list[dict[str, dict[str, str]]]:
    """Return the lines of the table of figures by system, for each direction."""
    rows = table(folder, "figures-retrieval")
    return [
        {row["system"]: row for row in rows if row["of"] == target}
        for target in dict.fromkeys(row["of"] for row in rows)
    ]


def row_text(row: dict[str, str]) -> str:
    return f"{float(row['R@10']):.1f} [{float(row['R@10 low']):.1f}, {float(row['R@10 high']):.1f}]"


def test_models_with_one_first_stage_count_once(tmp_path: Path) -> None:
    """If later stages do not change a direction, runs that share the first stage are the same model."""
    shared = write_orders(
        tmp_path / "o", {"vt>a": 0.9, "avt": 1.2}, (0, 1), make=lambda noise, seed: planted(noise, seed // 10),
        entry={"first_stage": "vt"}, names=("retrieval",),
    )  # fmt: skip
    (bench,) = analyse(read_systems([shared]))
    figure = bench.targets[0].figures["VT→A"]["R@10"]
    assert figure.num_seeds == 1 and "2 runs share 1 first stage" in figure.note
    (pair,) = bench.targets[0].comparisons[0].differences
    assert pair.num_seeds == 1 and bench.targets[0].winner is None
    edit(shared, lambda content: [model.pop("first_stage") for model in content["models"]])
    (bench,) = analyse(read_systems([shared]))
    assert bench.targets[0].figures["VT→A"]["R@10"].num_seeds == 2, "nothing is known of their first stages"


@pytest.mark.usefixtures("undrawn")
def test_a_study_beside_a_model_of_others(orders: Path, tmp_path: Path) -> None:
    """Orders with three seeds are distinguished as before; the other model, with one seed, counts as a trained model."""
    theirs = write_folder(tmp_path / "theirs", planted(2.5, 9), ("retrieval",))
    systems = read_systems([orders, theirs])
    target = analyse(systems)[0].targets[0]
    num_seeds = {(pair.a, pair.b): pair.num_seeds for pair in target.comparisons[0].differences}
    assert num_seeds == {("AV→T", "VT→A"): 3, ("AV→T", "theirs.npz"): 1, ("VT→A", "theirs.npz"): 1}
    assert target.winner is None
    summary = " ".join(build_evaluations(systems).summary)
    assert "Significant differences: VT→A is ahead of AV→T" in summary
    assert "Significant differences between trained models: VT→A is ahead of theirs.npz" in summary
    assert "theirs.npz: one seed, so the comparison is between trained models, not between methods" in summary


def test_a_pair_alone_is_not_compared_with_its_order(tmp_path: Path) -> None:
    folder = write_orders(tmp_path / "o", {"vt": 0.9, "vt>a": 0.9, "avt": 1.5}, (0, 1), names=("retrieval",))
    (bench,) = analyse(read_systems([folder]))
    assert set(bench.targets[0].figures) == {"VT", "VT→A", "AVT"}
    assert set(bench.targets[0].comparisons[0].recalls) == {"VT→A", "AVT"}
    assert bench.apart == ["VT is not compared: it combines fewer modalities than other orders of its study"]


def test_orders_that_are_shown_beside_the_others_do_not_keep_a_winner_from_being_named(tmp_path: Path) -> None:
    """As in the report of the study: a pair alone, and an order with one seed where others have more."""
    folder = write_orders(
        tmp_path / "o", {"vt": 0.9, "vt>a": 0.6, "avt": 2.6, "av>t": 1.5}, names=("retrieval",), directions=("t2v",)
    )
    edit(folder, lambda c: c.update(models=[m for m in c["models"] if m["order"] != "av>t" or m["seed"] == 0]))
    (bench,) = analyse(read_systems([folder]))
    (target,) = bench.targets
    assert target.compared == ("VT→A", "AVT") and target.winner == "VT→A" and target.beside == {"VT", "AV→T"}
    assert bench.apart == [
        "VT is not compared: it combines fewer modalities than other orders of its study",
        "AV→T is not compared: it has one seed, and other orders have more",
    ]


@pytest.mark.usefixtures("undrawn")
def test_steps_are_compared_by_recall_and_listed(tmp_path: Path) -> None:
    folders = [
        write_folder(tmp_path / name, seconds(noise, 7), ("crosstask",), ("t2v",))
        for name, noise in (("good", 0.5), ("bad", 4.0))
    ]
    (bench,) = analyse(read_systems(folders))
    (target,) = bench.targets
    assert target.main == "recall, mean over videos" and len(target.comparisons) == 1
    duel = clearest_duel(bench)
    kept = [arrays_of(f)["crosstask/t2v/aligned"] for f in folders]
    assert duel is not None and (duel.a, duel.what) == ("good.npz", "steps found")
    assert duel.value_a.tolist() == kept[0].tolist() and duel.wins == int((kept[0] > kept[1]).sum())
    assert duel.names[0] == "video0 of task0"
    build_evaluations(read_systems(folders))


@pytest.mark.usefixtures("undrawn")
def test_clusters_and_folds(tmp_path: Path) -> None:
    def folds(noise: float, seed: int) -> Any:
        embedded = planted(noise, seed)
        for fold in range(2):
            embedded.labels[f"fold-{fold}"] = np.where(np.arange(60) // 4 % 2 == fold, "test", "train")
        return embedded

    names = ("linear-probe", "clustering")
    folders = [
        write_folder(tmp_path / n, folds(noise, i), names, ()) for i, (n, noise) in enumerate((("a", 0.7), ("b", 2.0)))
    ]
    probe, clusters = analyse(read_systems(folders))
    compared = [target.name for target in probe.targets if target.comparisons]
    assert compared == [f"{side}, class, mean of 2 folds" for side in ("video", "audio", "video+audio")]
    assert not any(target.main or target.comparisons for target in clusters.targets)
    assert "Clusters of embeddings against labels: no comparison" in evaluation_text(folders)


# ---- names


@pytest.mark.usefixtures("undrawn")
def test_systems_have_distinct_names(tmp_path: Path) -> None:
    first = write_folder(tmp_path / "a" / "model", planted(1.0), ("retrieval",))
    second = write_folder(tmp_path / "b" / "model", planted(1.5), ("retrieval",))
    again = copy(first, tmp_path / "copy")
    assert [s.name for s in read_systems([first, second])] == ["a/model.npz", "b/model.npz"]
    names = [s.name for s in read_systems([first, again])]
    assert len(set(names)) == 2 and [name.rpartition(" ")[2] for name in names] == ["(model)", "(copy)"]
    build_evaluations(read_systems([first, second, again]))


def test_orders_of_two_studies_have_their_folders_names(orders: Path, tmp_path: Path) -> None:
    names = [system.name for system in read_systems([orders, copy(orders, tmp_path / "again")])]
    assert names == ["AV→T (orders)", "VT→A (orders)", "AV→T (again)", "VT→A (again)"]


# ---- a study, from its training on


@pytest.mark.usefixtures("undrawn")
def test_the_evaluation_of_a_study(tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trains, evaluates and reports orders that share first stages and one that lacks a modality."""
    recipe = load_recipe("debug", training={"tensorboard": False, "max_steps": 2, "device": "cpu"})
    run_study(tiny_store, tmp_path / "study", ["av>t", "vt>a", "vt"], [0, 1], recipe)
    words = ["evaluate", str(tmp_path / "study"), "--store", str(tiny_store), "--benchmark", "tiny"]
    assert main([*words, "--directions", "[t2v,t2va]", "--out", str(tmp_path / "e")]) == 0
    assert main(["report", str(tmp_path / "e")]) == 0
    printed = capsys.readouterr().out
    assert "one seed" not in printed
    assert "Retrieval on any clips, tiny, t2v, R@10: of AV→T, VT→A the highest " in printed
    assert "Not compared: VT " in printed
    rows = table(tmp_path / "e" / "report", "figures-retrieval-tiny")
    lines = [(row["of"], row["system"]) for row in rows]
    assert lines[:4] == [("t2v", name) for name in ("AV→T", "VT→A", "VT", "chance")] and ("t2va", "VT") not in lines
    for row in rows:
        if row["system"] != "chance":
            values = [
                value["r10"]
                for seed in (0, 1)
                for value in json.loads(
                    (
                        tmp_path / "e" / row["system"].replace("→", "-").lower() / f"seed-{seed}" / "results.json"
                    ).read_text()
                )["benchmarks"][0]["results"]
                if value["direction"] == row["of"]
            ]
            assert float(row["R@10"]) == pytest.approx(np.mean(values))
    page = (tmp_path / "e" / "report" / "report.md").read_text()
    assert f"trichord evaluate {tmp_path / 'study'} --store {tiny_store}" in page
    assert "VT is not compared: it combines fewer modalities than other orders of its study" in page
    assert "t2va: VT is not compared: it was not scored there" in page


# ---- the command line


@pytest.mark.usefixtures("undrawn")
def test_the_command_line(weak: Path, strong: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["report", str(weak), str(strong), "--out", str(tmp_path / "r"), "--direction", "v2a", "--level", "0.9"]
    assert main(command) == 0
    assert "Retrieval on any clips, v2a, R@10: the highest is strong.npz" in capsys.readouterr().out
    words = ["report", "--compare", str(weak), str(strong), "--out", str(tmp_path / "c"), "--direction", "v2a"]
    assert main([*words, "--level", "0.9"]) == 0
    one, two = ((tmp_path / name / "report.html").read_text() for name in "rc")
    assert one == two and "95 %" not in one and "--level 0.9" in one and "--direction v2a" in one
    capsys.readouterr()
    study = write_study_folder(tmp_path / "study", seeds=(0,), orders=["avt"])
    for arguments, message in (
        ([str(weak), str(study)], "studies and evaluations cannot be reported together"),
        (["--compare", str(study), str(weak)], "studies and evaluations cannot be reported together"),
        ([str(study), str(study)], "a report covers one study; compare two with trichord report --compare A B"),
        ([str(weak), str(weak)], "is the same folder as " + str(weak) + "; give each folder once"),
        ([str(tmp_path)], "contains neither a study (study.json) nor an evaluation (results.json)"),
        ([str(weak), "--level", "95"], "--level is 95.0; it must be above 0, and at most 1"),
        ([str(weak), "--direction", "x"], "x"),
        ([], "folders of evaluations"),
    ):
        assert main(["report", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error
    assert main(["report", str(study)]) == 0
    assert (study / "report" / "report.html").is_file()


def test_the_same_folders_give_the_same_files(weak: Path, strong: Path, tmp_path: Path) -> None:
    for name in "ab":
        write_evaluations([weak, strong], tmp_path / name)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) > 10
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
