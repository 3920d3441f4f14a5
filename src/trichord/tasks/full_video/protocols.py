"""The protocols of full-video retrieval, in which captions are the queries."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from trichord.errors import TrichordError
from trichord.parallel import on_main
from trichord.tasks.full_video.rows import Groups, full_video_outcome, own_videos, youcook2_videos
from trichord.tasks.protocol import Options, Outcome, Protocol
from trichord.tasks.retrieval.measure import all_directions
from trichord.tasks.retrieval.protocols import IMPORT, YOUCOOK2
from trichord.tasks.retrieval.selection import Selection, directions_of
from trichord.tasks.subject import Subject


def _run(selection: Selection, groups: Groups, protocol: Protocol, subject: Subject, options: Options) -> Outcome:
    name = protocol.row_name(options)
    if options.dual_softmax:
        raise TrichordError(f"benchmark {protocol.name} does not support the dual softmax; leave it out")
    known = tuple(d for d in all_directions(subject.modalities) if d.query == ("text",))
    asked = directions_of(subject, replace(options, usual=known), name)
    directions = [d for d in asked if d.query == ("text",)]
    if not directions:
        subject.needed(("text",), f"benchmark {protocol.name}")
        raise TrichordError(
            f"benchmark {protocol.name}: captions must be the queries, as in t2v or t2va; {asked[0].code} is another direction"
        )
    embedded, notes = selection.embedded(protocol, name, subject, options, directions)
    missing, fusion = options.missing_or(selection.missing), options.fusion_of(subject)
    videos, group_notes = groups(name, embedded)
    outcome = on_main(
        lambda: full_video_outcome(
            name, embedded, videos, directions, fusion, missing, options.block, options.windows_label
        )
    )
    sizes = {"clips": embedded.num_clips, "texts": embedded.num_texts}
    notes += group_notes
    if others := [d.code for d in asked if d not in directions]:
        notes.append(f"{name}: {', '.join(others)} left out, since captions must be the queries")
    outcome.notes = [*notes, *protocol.size_notes(sizes), *outcome.notes]
    return outcome


_GIVES = "R@1, R@5, R@10 and median rank of each way and direction (text as the query)"


def _protocol(
    selection: Selection, groups: Groups, name: str, title: str, paragraph: str, needs: str, **sizes: int
) -> Protocol:
    score = partial(_run, selection, groups)
    return Protocol(name, title, "retrieval", paragraph, needs, _GIVES, score, sizes, selection.address)


PROTOCOLS: tuple[Protocol, ...] = (
    _protocol(
        Selection(YOUCOOK2), youcook2_videos, "youcook2-videos", "YouCook2, full videos",
        "Captions are the queries, and videos are ranked. The store or the file defines the video of each clip. If each clip has "
        "its own video, as in the releases, and all names have the form of YouCook2 clips (the 11 characters of the video, then "
        "a separator or digits), the video is given by the first 11 characters. It is an error if no two clips belong to the "
        "same video, or if all do. There are five ways of pooling from clips to videos, each with its own rows. With a caption "
        "as the query: the best clip of a video, or the mean over its clips. With all captions of a video as the query: the "
        "mean over the captions of the best clip, the mean over all pairs, or votes, where each caption votes for the video of "
        "its best clip (clips that tie share the vote). Captions and clips of a video are those of the benchmark, without the "
        "parts between them.",
        IMPORT.format("youcook2"),
        clips=3350, texts=3350,
    ),
    _protocol(
        Selection(None), own_videos, "full-video", "Full videos of any clips",
        "As youcook2-videos, but the store or the file defines the video of each clip, regardless of names. Choose the clips "
        "with full-video:COLLECTION/SPLIT.",
        "Text, and videos with several clips.",
    ),
)  # fmt: skip
