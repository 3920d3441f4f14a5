"""Published checkpoints: reading of the files, and the mapping between their keys and those of `MCN`.

Two layouts of keys are supported. `mcn` is the layout of MCN and AVLnet, with two or three modalities, with or without
reconstruction heads. `howto100m` is the layout of the text-video model of HowTo100M.
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
from trichord.files.reading import missing
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
# Keys of a checkpoint that may hold its state dict.
WRAPPERS = ("net", "state_dict", "model_state_dict", "model", "checkpoint", "weights", "params")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")  # prefixes that wrappers of a network add to every key
UNUSED = ("DAVEnet.batchnorm1.*", "GU_*.cg.batch_norm.*")  # keys of the files that the published code never reads


@dataclass(frozen=True)
class LoadReport:
    """The report of `MCN.from_published`. It is empty for a network that was not loaded from a checkpoint.

    Attributes:
        source: Path of the checkpoint.
        layout: Layout of its keys, one of `LAYOUTS`.
        modalities: Modalities of the network.
        missing: Missing keys that `allow` permitted. Their weights keep the initial values.
        unexpected: Unknown keys that `allow` permitted.
        ignored: Published keys that no code reads (an unused batch normalization).
        order: All keys of the file, in its order.
        unused: Tensors of the ignored keys.

    Example:
        >>> from trichord.nn import LoadReport
        >>> print(LoadReport(source="mcn.pth", modalities=("video", "text"), order=("GU_video.fc.weight",)))
        mcn.pth: mcn checkpoint of video, text
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
            return "no checkpoint was loaded"
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
        raise missing(path, "file", mend="give a .pth, .pt or .safetensors file")
    refuse_lfs_pointer(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        from trichord.files.pickles import load_pickle  # reads pickles without executing them

        return load_pickle(path)
    except TrichordError:
        raise
    except Exception as error:  # each library has its own error classes for damaged files
        reason = one_line(error)[:120] or type(error).__name__
        raise TrichordError(
            f"{path}: cannot be read as a checkpoint ({reason}); the file is damaged or not a checkpoint"
        ) from error


def read_state(source: str | Path | Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], str]:
    """Read a state dict from a file or a dict, unwrapped and without the prefixes in `PREFIXES`.

    Nothing in the file is executed.

    Args:
        source: Path of a checkpoint, or a checkpoint or state dict.

    Returns:
        The state dict, and a name of the source for messages.

    Raises:
        TrichordError: If the file is missing, damaged, unsafe or not a checkpoint.

    Example:
        >>> import torch
        >>> from trichord.nn.published import read_state
        >>> read_state({"state_dict": {"module.GU_video.fc.bias": torch.zeros(2)}})
        ({'GU_video.fc.bias': tensor([0., 0.])}, 'the state dict')
    """
    name = str(source) if isinstance(source, str | Path) else "the state dict"
    state = _load_file(Path(source)) if isinstance(source, str | Path) else source
    while isinstance(state, Mapping) and (inner := [state[w] for w in WRAPPERS if isinstance(state.get(w), Mapping)]):
        state = inner[0]
    if not isinstance(state, Mapping) or not state or not all(isinstance(key, str) for key in state):
        raise TrichordError(
            f"{name}: does not contain a state dict (a mapping of names to tensors); "
            "give a checkpoint of MCN, AVLnet or HowTo100M"
        )
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in state)), ""):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    if bad := [key for key, value in state.items() if not isinstance(value, torch.Tensor)]:
        raise TrichordError(
            f"{name}: does not contain a state dict, because these entries are not tensors: {_listed(bad)}; "
            "give the state dict alone"
        )
    if isinstance(source, str | Path):
        check_tensors(state, name)
    return dict(state), name


def layout_of(state: Mapping[str, torch.Tensor], name: str) -> str:
    """Return the layout that the keys of a state dict belong to, one of `LAYOUTS`.

    Args:
        state: Bare state dict.
        name: Name of its source for messages.

    Returns:
        "mcn" or "howto100m".

    Raises:
        TrichordError: If the keys belong to neither layout.

    Example:
        >>> import torch
        >>> from trichord.nn.published import layout_of
        >>> layout_of({"GU_video.fc.bias": torch.zeros(2)}, "mcn.pth")
        'mcn'
    """
    if any(key.startswith(("text_pooling.", "GU_text.")) for key in state):
        return "howto100m"
    if any(key.startswith(tuple(LAYOUTS["mcn"])) for key in state):
        return "mcn"
    raise TrichordError(
        f"{name}: none of the keys belongs to MCN, AVLnet or HowTo100M (the keys are {_listed(list(state), 4)}); "
        "give a checkpoint of one of these models"
    )


def config_of(state: Mapping[str, torch.Tensor], layout: str, name: str) -> dict[str, Any]:
    """Derive the widths and modalities of a network from its weights.

    Args:
        state: Bare state dict.
        layout: Layout of its keys, one of `LAYOUTS`.
        name: Name of its source for messages.

    Returns:
        Arguments of `MCN`.

    Raises:
        TrichordError: If a key that determines a width is missing or has a wrong shape.

    Example:
        >>> import torch
        >>> from trichord.nn.published import config_of
        >>> state = {"GU_video.fc.weight": torch.zeros(4, 6), "GU_video.cg.fc.weight": torch.zeros(4, 4)}
        >>> config_of(state, "mcn", "mcn.pth")
        {'modalities': ('video',), 'embed_dim': 4, 'reconstruction_dim': None, 'video_dim': 6}
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
            raise TrichordError(
                f"{name}: {theirs} has the unexpected shape {shape}; the file is not a checkpoint of MCN, AVLnet or HowTo100M"
            )
        return int(state[theirs].shape[axis])

    modalities = tuple(m for m in ("video", "audio", "text") if has(f"encoders.{m}."))
    if not modalities:
        raise TrichordError(f"{name}: the keys of all encoders are missing; the checkpoint is incomplete")
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
    """Map published keys to keys of `model`, for every entry of its state dict, in the published order."""
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
    """Check that a published state dict fits a model.

    Args:
        model: Network, whose weights may be on the meta device.
        state: Bare state dict.
        layout: Layout of its keys, one of `LAYOUTS`.
        name: Name of its source for messages.
        allow: Patterns (`fnmatch`) of keys that may be missing or unknown.

    Returns:
        The missing keys, the unknown keys, and the published keys that no code reads.

    Raises:
        TrichordError: If keys are missing or unknown and match no pattern in `allow`, or if a weight has another shape. The
            message lists them.

    Example:
        >>> from trichord import MCN
        >>> from trichord.nn.published import check_fit
        >>> network = MCN(video_dim=6, embed_dim=4, reconstruction_dim=None, modalities=("video",))
        >>> state = network.to_published()
        >>> bias = state.pop("GU_video.fc.bias")
        >>> check_fit(network, state, "mcn", "mcn.pth", allow=["*.bias"])
        (['GU_video.fc.bias'], [], [])
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
        f"{title}: {_listed(entries)}"
        for title, entries in (
            ("missing keys", [key for key in missing if not permitted(key)]),
            ("unknown keys", [key for key in unexpected if not permitted(key)]),
            ("different shapes", shapes),
        )
        if entries
    ]
    if problems:
        raise TrichordError(
            f"{name}: does not fit the published {layout} network; {'; '.join(problems)}; "
            "to allow missing or unknown keys, load the file in Python with MCN.from_published(path, allow=[...]) "
            "and export that model"
        )
    return missing, unexpected, ignored


def load_state(
    model: nn.Module, state: Mapping[str, torch.Tensor], layout: str, name: str, allow: Sequence[str] = ()
) -> LoadReport:
    """Load published weights into a network of the right widths.

    Args:
        model: Network, an `MCN`.
        state: Bare state dict.
        layout: Layout of its keys, one of `LAYOUTS`.
        name: Name of its source for messages.
        allow: Patterns (`fnmatch`) of keys that may be missing or unknown.

    Returns:
        A report about the keys.

    Raises:
        TrichordError: As in `check_fit`.

    Example:
        >>> from trichord import MCN
        >>> from trichord.nn.published import load_state
        >>> network = MCN(video_dim=6, embed_dim=4, reconstruction_dim=None, modalities=("video",))
        >>> print(load_state(network, network.to_published(), "mcn", "mcn.pth"))
        mcn.pth: mcn checkpoint of video
    """
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
    """Return the state dict of a network under the published keys.

    Args:
        model: Network, an `MCN`.
        report: Report about the checkpoint that the network was loaded from, or an empty one.

    Returns:
        Copies of the weights on the CPU.

    Example:
        >>> from trichord import MCN
        >>> from trichord.nn.published import published_state
        >>> network = MCN(video_dim=6, embed_dim=4, reconstruction_dim=None, modalities=("video",))
        >>> list(published_state(network, network.load_report))
        ['GU_video.fc.weight', 'GU_video.fc.bias', 'GU_video.cg.fc.weight', 'GU_video.cg.fc.bias']
    """
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
