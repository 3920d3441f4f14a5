"""Full-video retrieval: five ways to aggregate clips, compared with loops."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trichord.errors import TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.modality import Direction
from trichord.tasks.full_video.measure import WAYS, full_video_ranks
from trichord.tasks.full_video.rows import full_video_outcome
from trichord.tasks.protocol import Options, Outcome
from trichord.tasks.registry import find_protocol
from trichord.tasks.subject import Subject


def video_scores(
    texts: np.ndarray, of_text: np.ndarray, clips: np.ndarray, of_clip: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the score of every video for every query, by aggregation, with Python loops over fractions."""

    def of_mean(values: list[Fraction]) -> Fraction:
        return sum(values, Fraction(0)) / len(values)

    videos = range(int(of_clip.max()) + 1)
    s = [[Fraction(float(a @ b)) for b in clips] for a in texts]
    clips_of_video = {v: [k for k in range(len(clips)) if of_clip[k] == v] for v in videos}
    says = {v: [c for c in range(len(texts)) if of_text[c] == v] for v in videos}
    best = [[max(row[k] for k in clips_of_video[v]) for v in videos] for row in s]
    mean = [[sum(row[k] for k in clips_of_video[v]) / len(clips_of_video[v]) for v in videos] for row in s]
    votes = []
    for v in videos:
        ballot = dict.fromkeys(videos, Fraction(0))
        for c in says[v]:
            top = [k for k in range(len(clips)) if s[c][k] == max(s[c])]
            for k in top:
                ballot[int(of_clip[k])] += Fraction(1, len(top))
        votes.append([ballot[w] for w in videos])
    return {
        "caption, best clip": np.array(best),
        "caption, mean clip": np.array(mean),
        "video, mean of best": np.array([[of_mean([best[c][w] for c in says[v]]) for w in videos] for v in videos]),
        "video, mean of mean": np.array([[of_mean([mean[c][w] for c in says[v]]) for w in videos] for v in videos]),
        "video, votes": np.array(votes),
    }


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 4), st.integers(0, 6), st.integers(0, 6), st.integers(1, 5), st.integers(0, 10**6))
def test_the_five_ways_against_loops(videos: int, more_texts: int, more_clips: int, block: int, seed: int) -> None:
    """With small integers, scores, their means and votes tie often and exactly."""
    rng = np.random.default_rng(seed)
    of_text = rng.permutation(np.concatenate([np.arange(videos), rng.integers(videos, size=more_texts)]))
    of_clip = rng.permutation(np.concatenate([np.arange(videos), rng.integers(videos, size=more_clips)]))
    texts = rng.integers(-2, 3, size=(len(of_text), 3)).astype(np.float32)
    clips = rng.integers(-2, 3, size=(len(of_clip), 3)).astype(np.float32)
    expected = video_scores(texts, of_text, clips, of_clip)
    ways = full_video_ranks(texts, of_text, clips, of_clip, block)
    assert tuple(ranks.way for ranks in ways) == WAYS
    for ranks in ways:
        truth = of_text if ranks.way.startswith("caption") else np.arange(videos)
        assert np.array_equal(ranks.video, truth) and ranks.counts.num_gallery == videos
        scores = expected[ranks.way]
        own = scores[np.arange(len(truth)), truth][:, None]
        assert np.array_equal(ranks.counts.greater, (scores > own).sum(1)), ranks.way
        assert np.array_equal(ranks.counts.equal, (scores == own).sum(1)), ranks.way


def test_means_that_are_the_same_tie() -> None:
    """Both means are -1, of three scores (-3, -2, 2) and of one; -4/3 and 5/3 are not exact as floats."""
    texts = np.array([[2.0, 1], [2, 1]], np.float32)
    clips = np.array([[-2.0, 1], [-2, 2], [0, 2], [0, -1]], np.float32)
    ranks = {r.way: r.counts for r in full_video_ranks(texts, np.array([0, 1]), clips, np.array([0, 0, 0, 1]))}
    for way in ("caption, mean clip", "video, mean of mean"):
        assert (ranks[way].greater.tolist(), ranks[way].equal.tolist()) == ([0, 0], [2, 2]), way


def test_means_are_rounded_once() -> None:
    """The best scores of two captions are 2^24 + 1 and 2^24 + 5, and 2^24 + 2 and 2^24 + 4; float32 can only hold the
    latter.
    """
    big = 2.0**24
    texts = np.array([[1.0, 0], [0, 1], [0, 0]])
    clips = np.array([[big + 1, big + 5], [big + 2, big + 4]])
    ranks = {r.way: r.counts for r in full_video_ranks(texts, np.array([0, 0, 1]), clips, np.array([0, 1]))}
    for way in ("video, mean of best", "video, mean of mean"):
        assert (ranks[way].greater[0], ranks[way].equal[0]) == (0, 2), way


def test_by_hand() -> None:
    """Video 0 has the clips (2, 0), (0, 1); video 1 has (1, 1). Captions of video 0: (1, 0); (0, 1); of video 1: (1, 1).

    Scores by clip:     (1, 0): 2 0 | 1    (0, 1): 0 1 | 1    (1, 1): 2 1 | 2
    Best clip:                  2 | 1              1 | 1              2 | 2      -> above 0, 0 (one tied), 0 (one tied)
    Mean clip:                  1 | 1            0.5 | 1            1.5 | 2      -> tied, above 1, above 0
    Votes: the first caption for video 0; the second one half each; the third one half each -> video 0: 1.5 to 0.5, video 1 a tie
    """
    ways = full_video_ranks(
        np.array([[1.0, 0], [0, 1], [1, 1]], np.float32),
        np.array([0, 0, 1]),
        np.array([[2.0, 0], [0, 1], [1, 1]], np.float32),
        np.array([0, 0, 1]),
    )
    by_way = {ranks.way: (ranks.counts.greater.tolist(), ranks.counts.equal.tolist()) for ranks in ways}
    assert by_way["caption, best clip"] == ([0, 0, 0], [1, 2, 2])
    assert by_way["caption, mean clip"] == ([0, 1, 0], [2, 1, 1])
    assert by_way["video, votes"] == ([0, 0], [1, 2])
    assert by_way["video, mean of best"] == ([0, 0], [1, 2])  # (2 + 1) / 2 to 1; 2 to 2
    assert by_way["video, mean of mean"] == ([1, 0], [1, 1])  # 0.75 to 1; 1.5 to 2


def test_videos_without_a_caption_or_a_clip_are_left_out_or_missed() -> None:
    e = Embedded.of(
        {"video": np.eye(4), "text": np.eye(4)},
        valid={"video": [1, 1, 1, 0], "text": [1, 1, 0, 1]},
        videos=["a", "a", "b", "c"],
    )
    rows = {}
    for missing in ("drop", "miss"):
        outcome = full_video_outcome("x", e, e.videos, [Direction.parse("t2v")], "sum", missing, 1024)
        rows[missing] = {(row.of, row.measure): (row.value, row.num, row.chance) for row in outcome.rows}
    # one video, two captions take part; of four captions and three videos
    assert rows["drop"]["t2v, sum: caption, best clip", "R@1"] == (100.0, 2, 100.0)
    assert rows["miss"]["t2v, sum: caption, best clip", "R@1"] == (50.0, 4, 50.0)
    assert rows["miss"]["t2v, sum: video, votes", "R@1"] == pytest.approx((100 / 3, 3, 100 / 3))
    with pytest.raises(TrichordError, match="benchmark x: no video has text and audio"):
        silent = Embedded.of({"audio": np.eye(2), "text": np.eye(2)}, valid={"audio": [0, 0]})
        full_video_outcome("x", silent, silent.videos, [Direction.parse("t2a")], "sum", "drop", 1024)
    with pytest.raises(TrichordError, match="every video needs at least one caption and one clip"):
        full_video_ranks(np.eye(2), np.array([0, 0]), np.eye(2), np.array([0, 1]))


# ---- which clips are of one video


def run(name: str, clips: Embedded) -> Outcome:
    return find_protocol(name).run(Subject.of_embeddings(clips), Options(directions=("t2v",)))


def clips_named(names: list[str], **more: object) -> Embedded:
    rows = np.eye(len(names), dtype=np.float32)
    return Embedded.of({"video": rows, "text": rows}, ids=names, source="e.npz", **more)  # type: ignore[arg-type]


def test_full_video_groups_clips_by_their_own_videos() -> None:
    """Recordings with similar names do not form a group; they once did, and every score was 100 %."""
    names = [f"recording_{i:04}" for i in range(40)]
    with pytest.raises(
        TrichordError, match="no two clips of e.npz belong to the same video; give the video of each clip"
    ) as e:
        run("full-video", clips_named(names))
    assert "\n" not in str(e.value) and "use the benchmark retrieval" in str(e.value)
    pairs = [f"a recording of {i // 2}" for i in range(40)]
    outcome = run("full-video", clips_named(names, videos=pairs))
    assert outcome.arrays["full-video/video"].tolist() == sorted(set(pairs))
    with pytest.raises(
        TrichordError, match="all 40 clips of e.npz belong to the same video, 'x', so there is nothing to rank"
    ):
        run("full-video", clips_named(names, videos=["x"] * 40))


def test_several_captions_of_one_span_are_one_clip() -> None:
    names = ["GLd3aX16zBg_0", "GLd3aX16zBg_0#2", "GLd3aX16zBg_1", "xHr8X2Wpmno_0"]
    twice = clips_named(names, videos=[n.split("#")[0] for n in names], start_s=[0.0] * 4, end_s=[5.0, 5, 7, 7])
    with pytest.raises(TrichordError, match="no two clips of e.npz belong to the same video"):
        run("full-video", twice)
    assert run("youcook2-videos", twice).arrays["youcook2-videos/video"].tolist() == ["GLd3aX16zBg", "xHr8X2Wpmno"]
    cut = twice.but(start_s=[0.0, 5, 0, 0], end_s=[5.0, 9, 7, 7])  # two spans of one video
    assert len(run("full-video", cut).arrays["full-video/video"]) == 3


def test_youcook2_clips_are_grouped_by_the_first_characters_of_their_ids() -> None:
    outcome = run("youcook2-videos", clips_named(["GLd3aX16zBg_0", "GLd3aX16zBg_1", "-_r8X2Wpmno12", "xHr8X2Wpmno#2"]))
    assert outcome.arrays["youcook2-videos/video"].tolist() == ["-_r8X2Wpmno", "GLd3aX16zBg", "xHr8X2Wpmno"]
    assert "youcook2-videos: clips are grouped by the first 11 characters of their names: 3 videos" in outcome.notes
    numbered = run(
        "youcook2-videos", clips_named(["GLd3aX16zBg", "GLd3aX16zBg#2", "xHr8X2Wpmno"])
    )  # as the import does
    assert numbered.arrays["youcook2-videos/video"].tolist() == ["GLd3aX16zBg", "xHr8X2Wpmno"]
    own = run("youcook2-videos", clips_named(list("abc"), videos=["v", "v", "a long name"]))
    assert own.arrays["youcook2-videos/video"].tolist() == ["a long name", "v"]
    assert not any("first 11 characters" in note for note in own.notes)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["GLd3aX16zBg_0", "GLd3aX16zB"], "'GLd3aX16zB' is not the name of a YouCook2 clip"),
        (["recordings of mine 1", "recordings of mine 2"], "'recordings of mine 1' is not the name of a YouCook2 clip"),
        (["GLd3aX16zBgA", "GLd3aX16zBgB"], "'GLd3aX16zBgA' is not the name of a YouCook2 clip"),
        (["GLd3aX16zBg_0", "xHr8X2Wpmno_0"], "no two clips of e.npz have the same first 11 characters"),
        ([f"recording_{i:04}" for i in range(40)], "all 40 clips of e.npz belong to the same video, 'recording_0'"),
    ],
)
def test_clips_that_form_no_groups_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(TrichordError, match=f"benchmark youcook2-videos: .*{message}"):
        run("youcook2-videos", clips_named(names))


def test_equal_scores_give_chance() -> None:
    texts, clips = np.ones((12, 2), np.float32), np.ones((20, 2), np.float32)
    of_text, of_clip = np.arange(12) % 4, np.arange(20) % 4
    for ranks in full_video_ranks(texts, of_text, clips, of_clip):
        assert (ranks.counts.greater == 0).all() and (ranks.counts.equal == 4).all(), ranks.way
