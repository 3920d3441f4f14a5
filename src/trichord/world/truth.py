"""`world.json`: what happens in a world's videos, by which it is also known again and counted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trichord.errors import TrichordError
from trichord.files.folders import check_no_links
from trichord.files.reading import read_text
from trichord.files.writing import write_text
from trichord.world.information import Information, script_information
from trichord.world.profiles import profile_of
from trichord.world.script import VideoScript, write_script

_FORMAT = 1  # raise it when the same parameters give another world


def claim(out: Path, truth: dict[str, Any]) -> None:
    """Write `world.json` first, so that an interrupted world can be gone on with; refuse a folder of other content."""
    out.mkdir(parents=True, exist_ok=True)
    check_no_links(out)
    path = out / "world.json"
    text = json.dumps(truth, indent=1) + "\n"
    if path.exists():
        try:
            found = json.loads(read_text(path))
            parameters = found["parameters"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise TrichordError(f"{path} is not a world's truth; remove {out} or give another folder") from error
        made = json.loads(text)
        if {**found, "information": None} == {**made, "information": None}:
            return
        wanted = made["parameters"]
        other = next((k for k in wanted if parameters.get(k) != wanted[k]), None)
        what = f"{other} {parameters.get(other)}, not {wanted[other]}" if other else "made by another version"
        raise TrichordError(f"{path} belongs to a different world ({what}); give another folder or remove {out}")
    for split in ("train", "test"):
        if (out / split).exists():
            raise TrichordError(f"{out} holds {split}/ but no world.json, so it is no world; give an empty folder")
    write_text(path, text, shared=True)


def truth_of(
    parameters: dict[str, Any], videos: list[VideoScript], information: Mapping[str, Information]
) -> dict[str, Any]:
    """What `world.json` holds.

    Worlds of the profile `balanced` were there before the others: what came later stands in the file only where it is
    set, and their `information` (by split) not at all, so that their file is the same as ever. `world_information`
    counts it.
    """
    entries = []
    for video in videos:
        entry = asdict(video)
        del entry["captions"], entry["seed"], entry["material_heard"]
        for name in ("mistaken", "picture_off_s", "sound_off_s"):
            if not entry[name]:
                del entry[name]
        for step in entry["steps"]:
            step["place"] = video.place
            for name in ("mistaken", "order_shown"):
                if not step[name]:
                    del step[name]
        entries.append(entry)
    truth = {"format": _FORMAT, "parameters": parameters, "videos": entries}
    if parameters["profile"]["name"] != "balanced":
        truth["information"] = {split: table.record() for split, table in information.items()}
    return truth


def world_information(world: Path, *, split: str = "train") -> Information:
    """How much each modality of a rendered world tells of the content, in bits; `print` shows it as a table.

    Args:
        world: folder that `write_world` made.
        split: whose steps are counted, `train` or `test`.

    Raises:
        TrichordError: there is no world, its world.json is spoiled or of another version, or there is no such split.
    """
    path = Path(world) / "world.json"
    if split not in ("train", "test"):
        raise TrichordError(f"a world has no split '{split}'; give train or test")
    if not path.exists():
        raise TrichordError(f"{path} is missing; give a folder made by `trichord world`")
    try:
        found = json.loads(read_text(path))
        parameters = found["parameters"]
        profile = profile_of(parameters["profile"])
        names = ("num_train", "num_test", "steps_per_video", "step_s", "seed")
        videos = write_script(**{name: parameters[name] for name in names}, profile=profile)
        made = truth_of(parameters, videos, {})
        same = all(found[key] == json.loads(json.dumps(made[key])) for key in ("format", "videos"))
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError, RecursionError) as error:
        raise TrichordError(f"{path} is not a world's truth; make the world again in another folder") from error
    if not same:
        raise TrichordError(f"{path} was made by another version; make the world again in another folder")
    return script_information(videos, profile, split=split)
