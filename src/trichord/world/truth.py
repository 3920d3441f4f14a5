"""The file `world.json`, which records the content of the videos of a world and identifies the world."""

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

_OPTIONAL = {"num_val": 0}  # parameters that world.json contains only if they differ from this value
_FORMAT = 1  # increase it if the same parameters give another world


def claim(out: Path, truth: dict[str, Any]) -> None:
    """Write `world.json`, or check an existing one. It is written first, so that an interrupted world can be continued.

    Args:
        out: Folder of the world.
        truth: Contents of `world.json`.

    Raises:
        TrichordError: If the folder contains another world or other files.
    """
    out.mkdir(parents=True, exist_ok=True)
    check_no_links(out)
    path = out / "world.json"
    text = json.dumps(truth, indent=1) + "\n"
    if path.exists():
        try:
            existing = json.loads(read_text(path))
            parameters = existing["parameters"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise TrichordError(f"{path} does not describe a world; remove {out} or give another folder") from error
        requested = json.loads(text)
        if {**existing, "information": None} == {**requested, "information": None}:
            return
        expected = requested["parameters"]
        parameters, expected = _OPTIONAL | parameters, _OPTIONAL | expected
        different = next((k for k in expected if parameters.get(k) != expected[k]), None)
        difference = (
            f"its {different} is {parameters.get(different)} instead of {expected[different]}"
            if different
            else "made by another version"
        )
        raise TrichordError(f"{path} belongs to a different world ({difference}); give another folder or remove {out}")
    for split in ("train", "test", "val"):
        if (out / split).exists():
            raise TrichordError(
                f"{out} contains {split}/ but no world.json, so it is not the folder of a world; give an empty folder"
            )
    write_text(path, text, shared=True)


def truth_of(
    parameters: dict[str, Any], videos: list[VideoScript], information: Mapping[str, Information]
) -> dict[str, Any]:
    """Return the contents of `world.json`.

    The profile `balanced` is older than the others. To keep the files of its worlds unchanged, later fields are included only if
    they are set, and the information of these worlds is not included; `world_information` computes it.

    Args:
        parameters: Parameters of the world.
        videos: Scripts of the videos.
        information: Information of each modality, by split.

    Returns:
        The contents of the file.
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
    """Return the information of each modality of a rendered world about the content, in bits. `print` shows it as a table.

    Args:
        world: Folder that `write_world` wrote.
        split: Split whose steps are counted, "train" or "test".

    Returns:
        The information.

    Raises:
        TrichordError: If the folder is not that of a world, if its world.json is damaged or of another version, or if the split is
            unknown.
    """
    path = Path(world) / "world.json"
    if split not in ("train", "test"):
        raise TrichordError(f"a world has no split '{split}'; give train or test")
    if not path.exists():
        raise TrichordError(f"{path}: does not exist; give a folder that `trichord world` wrote")
    try:
        existing = json.loads(read_text(path))
        parameters = existing["parameters"]
        profile = profile_of(parameters["profile"])
        names = ("num_train", "num_test", "steps_per_video", "step_s", "seed")
        num_val = parameters.get("num_val", 0)
        videos = write_script(**{name: parameters[name] for name in names}, num_val=num_val, profile=profile)
        expected = truth_of(parameters, videos, {})
        same = all(existing[key] == json.loads(json.dumps(expected[key])) for key in ("format", "videos"))
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError, RecursionError) as error:
        raise TrichordError(f"{path} does not describe a world; render the world again in another folder") from error
    if not same:
        raise TrichordError(f"{path} was made by another version; render the world again in another folder")
    return script_information(videos, profile, split=split)
