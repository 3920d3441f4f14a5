"""Published checkpoints: reading the files, and the map between their keys and those of `MCN`.

Two layouts of keys are known. `mcn`: MCN and AVLnet, with two or three modalities, with or without reconstruction
heads. `howto100m`: the text-video model of HowTo100M.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trichord.errors import TrichordError, one_line
from trichord.files.lfs import refuse_lfs_pointer
from trichord.files.torch_files import check_tensors

# Published prefix -> prefix in MCN, in the published order.
LAYOUTS: dict[str, dict[str, str]] = {
    "mcn": {
        "DAVEnet.": "encoders.audio.davenet.",
        "DAVEnet_projection.": "encoders.audio.projection.",
        "GU_audio.fc.": "encoders.audio.gated.fc.",
        "GU_audio.cg.fc.": "encoders.audio.gated.gate.",
        "GU_video.fc.": "encoders.video.gated.fc.",
        "GU_video.cg.fc.": "encoders.video.gated.gate.",
        "text_pooling_caption.fc.": "encoders.text.word.",
        "GU_text_captions.fc.": "encoders.text.gated.fc.",
        "GU_text_captions.cg.fc.": "encoders.text.gated.gate.",
        "recon_v.": "heads.video.",
        "recon_a.": "heads.audio.",
        "recon_t.": "heads.text.",
    },
    "howto100m": {
        "text_pooling.fc.": "encoders.text.word.",
        "GU_text.fc.": "encoders.text.gated.fc.",
        "GU_text.cg.fc.": "encoders.text.gated.gate.",
        "GU_video.fc.": "encoders.video.gated.fc.",
        "GU_video.cg.fc.": "encoders.video.gated.gate.",
    },
}
WRAPPERS = (
    "net",
    "state_dict",
    "model_state_dict",
    "model",
    "checkpoint",
    "weights",
    "params",
)  # keys of a checkpoint under which its state dict lies
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")  # what wrappers of a network put before every key
UNUSED = ("DAVEnet.batchnorm1.*", "GU_*.cg.batch_norm.*")  # in the files, never read by the published code


@dataclass(frozen=True)
class LoadReport:
    """What `MCN.from_published` found; empty for a network that was not read from a checkpoint.

    missing, unexpected: keys that were permitted by `allow`; missing ones keep their initial values.
    ignored: published keys that nothing reads (unused batch norm). order: all keys of the file, in its order.
    """

    source: str = ""
    layout: str = "mcn"
    modalities: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    order: tuple[str, ...] = field(default=(), repr=False)
    unused: Mapping[str, torch.Tensor] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        if not self.order:
            return "no checkpoint was read"
        parts = [f"{self.source}: {self.layout} checkpoint of {', '.join(self.modalities)}"]
        for title in ("missing", "unexpected", "ignored"):
            if keys := getattr(self, title):
                parts.append(f"{len(keys)} {title} ({_listed(keys)})")
        return "; ".join(parts)


def _listed(keys: Sequence[str], most: int = 8) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more


def _load_file(path: Path) -> Any:
    if not path.is_file():
        raise TrichordError(f"{path}: there is no such checkpoint file; give a .pth, .pt or .safetensors file")
    refuse_lfs_pointer(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        from trichord.files.pickles import load_pickle  # a reader of files alone, for all pickles of others

        return load_pickle(path)
    except TrichordError:
        raise
    except Exception as error:  # each reader has its own error classes for a damaged file
        reason = one_line(error)[:120] or type(error).__name__
        raise TrichordError(f"{path}: cannot be read as a checkpoint ({reason}); is it damaged or not one?") from error


def read_state(source: str | Path | Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], str]:
    """The bare state dict of a file or a dict, unwrapped and without the prefixes of `PREFIXES`, and a name for messages.

    Nothing in a file is executed. Raises TrichordError for a file that is missing, damaged, refused or no checkpoint.
    """
    name = str(source) if isinstance(source, str | Path) else "the state dict"
    state = _load_file(Path(source)) if isinstance(source, str | Path) else source
    while isinstance(state, Mapping) and (inner := [state[w] for w in WRAPPERS if isinstance(state.get(w), Mapping)]):
        state = inner[0]
    if not isinstance(state, Mapping) or not state or not all(isinstance(key, str) for key in state):
        raise TrichordError(f"{name}: holds no state dict (names with tensors); give a checkpoint of MCN or a relative")
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in state)), ""):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    if bad := [key for key, value in state.items() if not isinstance(value, torch.Tensor)]:
        raise TrichordError(f"{name}: holds no state dict, {_listed(bad)} is not a tensor; give the state dict alone")
    if isinstance(source, str | Path):
        check_tensors(state, name)
    return dict(state), name


def layout_of(state: Mapping[str, torch.Tensor], name: str) -> str:
    """Which of `LAYOUTS` the keys belong to. Raises TrichordError if to none."""
    if any(key.startswith(("text_pooling.", "GU_text.")) for key in state):
        return "howto100m"
    if any(key.startswith(tuple(LAYOUTS["mcn"])) for key in state):
        return "mcn"
    raise TrichordError(
        f"{name}: no key is one of MCN, AVLnet or HowTo100M (it has {_listed(list(state), 4)}); give one of theirs"
    )


def config_of(state: Mapping[str, torch.Tensor], layout: str, name: str) -> dict[str, Any]:
    """Widths and modalities of the network that `state` belongs to, as arguments of `MCN`.

    Raises TrichordError if a key that gives a width is missing.
    """
    prefix = {ours: theirs for theirs, ours in LAYOUTS[layout].items()}

    def has(start: str) -> bool:
        return any(key.startswith(theirs) for ours, theirs in prefix.items() if ours.startswith(start) for key in state)

    def size(key: str, axis: int) -> int:
        start = next(ours for ours in prefix if key.startswith(ours))
        theirs = prefix[start] + key.removeprefix(start)
        if theirs not in state:
            raise TrichordError(f"{name}: the key {theirs} is missing; the checkpoint is incomplete")
        if state[theirs].ndim <= axis:
            shape = tuple(state[theirs].shape)
            raise TrichordError(f"{name}: {theirs} has the shape {shape}; this is no checkpoint of MCN")
        return int(state[theirs].shape[axis])

    modalities = tuple(m for m in ("video", "audio", "text") if has(f"encoders.{m}."))
    if not modalities:
        raise TrichordError(f"{name}: no encoder's keys are there; the checkpoint is incomplete")
    last = {"video": "gated.fc", "audio": "projection", "text": "gated.fc"}[modalities[0]]
    config: dict[str, Any] = {
        "modalities": modalities,
        "embed_dim": size(f"encoders.{modalities[0]}.{last}.weight", 0),
        "reconstruction_dim": None,
    }
    if "video" in modalities:
        config["video_dim"] = size("encoders.video.gated.fc.weight", 1)
    if "audio" in modalities:
        davenet = "encoders.audio.davenet."
        config["mel_bins"] = size(f"{davenet}conv1.weight", 2)
        config["audio_channels"] = tuple(size(f"{davenet}layer{i}.0.conv1.weight", 0) for i in range(1, 5))
    if "text" in modalities:
        config["word_dim"] = size("encoders.text.word.weight", 1)
    if heads := [m for m in modalities if has(f"heads.{m}.")]:
        config["reconstruction_dim"] = size(f"heads.{heads[0]}.0.weight", 0)
    return config


def _published_keys(model: nn.Module, layout: str) -> dict[str, str]:
    """Published key -> key of `model`, for every entry of its state dict, in the published order."""
    ours = model.state_dict().keys()
    return {
        theirs + key.removeprefix(start): key
        for theirs, start in LAYOUTS[layout].items()
        for key in ours
        if key.startswith(start)
    }


def check_fit(
    model: nn.Module, state: Mapping[str, torch.Tensor], layout: str, name: str, allow: Sequence[str] = ()
) -> tuple[list[str], list[str], list[str]]:
    """Keys that are missing, unknown and known as unused, of a model that may be without memory (`meta`).

    Raises TrichordError that lists the keys that are missing, unknown or of another shape, but for those that match
    a pattern of `allow` and the known unused ones.
    """
    keys = _published_keys(model, layout)
    own = model.state_dict()

    def permitted(key: str) -> bool:
        return any(fnmatchcase(key, pattern) for pattern in allow)

    extra = [key for key in state if key not in keys]
    ignored = [key for key in extra if any(fnmatchcase(key, pattern) for pattern in UNUSED)]
    unexpected = [key for key in extra if key not in ignored]
    missing = [key for key in keys if key not in state]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[ours].shape)}"
        for key, ours in keys.items()
        if key in state and state[key].shape != own[ours].shape
    ]
    problems = [
        f"{title}: {_listed(found)}"
        for title, found in (
            ("missing keys", [key for key in missing if not permitted(key)]),
            ("unknown keys", [key for key in unexpected if not permitted(key)]),
            ("other widths", shapes),
        )
        if found
    ]
    if problems:
        raise TrichordError(
            f"{name}: does not fit the published {layout} network; {'; '.join(problems)}; "
            "if keys may be left out, load it in Python with MCN.from_published(path, allow=[...]), and export that model"
        )
    return missing, unexpected, ignored


def load_state(
    model: nn.Module, state: Mapping[str, torch.Tensor], layout: str, name: str, allow: Sequence[str] = ()
) -> LoadReport:
    """Put published weights into an `MCN` of the right widths. Raises TrichordError as `check_fit`."""
    missing, unexpected, ignored = check_fit(model, state, layout, name, allow)
    keys, own = _published_keys(model, layout), model.state_dict()
    model.load_state_dict({**own, **{ours: state[key] for key, ours in keys.items() if key in state}})
    return LoadReport(
        source=name,
        layout=layout,
        modalities=tuple(model.modalities),  # type: ignore[arg-type]
        missing=tuple(missing),
        unexpected=tuple(unexpected),
        ignored=tuple(ignored),
        order=tuple(state),
        unused={key: state[key].detach().cpu().clone() for key in ignored},
    )


def published_state(model: nn.Module, report: LoadReport) -> dict[str, torch.Tensor]:
    """The state dict of an `MCN` under published keys; `report` is that of the checkpoint it came from, if any."""
    own = model.state_dict()
    out: dict[str, torch.Tensor] = {}
    for key, ours in _published_keys(model, report.layout).items():
        if key == "DAVEnet.conv1.weight":
            norm = nn.BatchNorm2d(1).state_dict()
            out.update({f"DAVEnet.batchnorm1.{k}": v.clone() for k, v in norm.items()})
        out[key] = own[ours].detach().cpu().clone()
    out.update({key: value.clone() for key, value in report.unused.items()})
    place = {key: i for i, key in enumerate(report.order)}
    return dict(sorted(out.items(), key=lambda item: place.get(item[0], len(place))))
