"""Reproduction of a diverged step from its dump (`training.divergence`), with a report of the first values that are not finite.

A single process encodes the batches of all processes: together if `training.batch_norm` is global, and separately otherwise, so
that the batch statistics are the same. The centroids are those that the loss used. If the gradient diverged, the graph of the
whole batch is stored, even if the training used chunks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trichord.errors import TrichordError, one_line
from trichord.files.paths import accepts_text_paths
from trichord.files.reading import check_regular, unreadable
from trichord.losses.combined import CombinedLoss
from trichord.losses.kmeans import assign
from trichord.modality import declare_recorded
from trichord.nn import MCN, DAVEnet, Encoded
from trichord.recipes import Recipe, recipe_from_dict
from trichord.study import factories
from trichord.study.files import damaged, read_json
from trichord.study.places import check_described
from trichord.training.divergence import DESCRIPTION, FOLDER, FORMAT, MEMORY, MODEL
from trichord.training.models import network_of
from trichord.training.stage import Stage, prepare_model

MEND = "train the stage again to write it again"
EXTREME = 100.0  # rows that are larger than the median row by this factor are reported
SHOWN = 5  # largest number of rows or names in a line


@dataclass(frozen=True)
class Dump:
    """The dump of a diverged step.

    Attributes:
        folder: Folder of the dump.
        described: Content of `divergence.json`.
        stage: Stage that was trained.
        recipe: Recipe of the training.
        model: Network with the weights before the step.
        memory: State of the clustering. None without clustering.
        batches: Tensors of the batch of each process.
        clips: Clips of the batch of each process.
    """

    folder: Path
    described: dict[str, Any]
    stage: Stage
    recipe: Recipe
    model: MCN
    memory: dict[str, Tensor] | None
    batches: list[dict[str, Tensor]]
    clips: list[dict[str, Any]]


@dataclass
class Reproduction:
    """The result of the reproduction of a diverged step.

    Attributes:
        title: Description of the step.
        before: Terms of the loss in the training, with `grad_norm` if the gradient was not finite.
        now: The same terms in the reproduction.
        same: Whether the same terms are not finite.
        where: Lines that name the first values that are not finite.
    """

    title: str
    before: dict[str, float]
    now: dict[str, float]
    same: bool = False
    where: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        terms = [f"  {name:<20} {self.before[name]:<12g} {self.now[name]:<12g}" for name in self.before]
        verdict = (
            "the same values are not finite in both"
            if self.same
            else "the results differ, since another device or version rounds differently"
        )
        return "\n".join([self.title, f"  {'':<20} {'training':<12} now", *terms, verdict, *self.where])


@accepts_text_paths
def reproduce(dump: Path) -> Reproduction:
    """Run a diverged step again.

    Args:
        dump: Folder `stages/X/divergence`, or the folder of the stage that contains it.

    Returns:
        The values of the step, and the first values that are not finite.

    Raises:
        TrichordError: The dump is missing or damaged.
    """
    read = read_dump(dump)
    device = torch.device("cuda" if read.recipe.training.device != "cpu" and torch.cuda.is_available() else "cpu")
    read.model.to(device)
    for module in read.model.modules():
        if isinstance(module, DAVEnet):
            module.fast = read.recipe.training.fast
    described = read.described
    before = {name: float(value) for name, value in described["terms"].items()}
    of_gradient = described["kind"] == "gradient"
    if of_gradient:
        before["grad_norm"] = float(described["grad_norm"])
    now, _ = _run(read, device, of_gradient)
    step, epoch = described["step"] + 1, described["epoch"] + 1
    title = f"stage {read.stage.chain}, step {step} (epoch {epoch}): the {described['kind']} was not finite"
    result = Reproduction(title, before, {name: now.get(name, float("nan")) for name in before})
    result.same = _not_finite(before) == _not_finite(now) != set()
    for module in read.model.modules():
        if isinstance(module, DAVEnet):
            module.fast = False  # the fast path does not call every module
    with _watched(read.model) as first:
        _, embeddings = _run(read, device, of_gradient)
    result.where = [*_modules(first, read.model, of_gradient), *_rows(read, embeddings), *_weights(read)]
    return result


def read_dump(folder: Path) -> Dump:
    """Read and check a dump.

    Args:
        folder: Folder of the dump, or of the stage that contains it.

    Raises:
        TrichordError: The dump is missing or damaged.
    """
    folder = folder / FOLDER if (folder / FOLDER / DESCRIPTION).is_file() else folder
    path = folder / DESCRIPTION
    if not path.is_file():
        raise TrichordError(
            f"{folder}: contains no diverged step (there is no {DESCRIPTION}); give the folder stages/X/{FOLDER} of a run"
        )
    described = read_json(path, mend=MEND)
    if described.get("format") != FORMAT:
        raise damaged(
            path, f"it has format {described.get('format')}, but this version of trichord reads {FORMAT}", MEND
        )
    try:
        declare_recorded(described.get("modalities", {}), path)
        recipe = recipe_from_dict(described["settings"], source=str(path))
        stage = Stage.from_dict(described["stage"])
        model = network_of(described["model"], folder / MODEL)
        numbers = range(int(described["num_processes"]))
        _ = (
            described["kind"],
            described["step"] + described["epoch"],
            int(described["seed"]),
            float(described["loss_scale"]),
            dict(described["terms"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(path, one_line(error), MEND) from None
    check_described(Path(os.path.abspath(folder)).parent, {**described, "stage": stage.chain})
    try:
        model.load_state_dict(_tensors(folder / MODEL))
    except RuntimeError as error:
        raise damaged(folder / MODEL, one_line(error), MEND) from None
    memory = _tensors(folder / MEMORY) if (folder / MEMORY).is_file() else None
    batches = [_tensors(folder / f"batch-{n}.safetensors") for n in numbers]
    clips = [read_json(folder / f"clips-{n}.json", mend=MEND) for n in numbers]
    return Dump(folder, described, stage, recipe, model, memory, batches, clips)


def _tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        check_regular(path)
        return load_file(path)
    except (OSError, SafetensorError, MemoryError) as error:
        raise unreadable(path, error, mend=MEND) from None


class _Used:
    """Replacement of the cluster memory, with the centroids that the loss used. It is never fitted."""

    def __init__(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        self.centroids = state["centroids"].to(device)
        self.objective = float(state["last_fit"][0]) if len(state["last_fit"]) else None

    def update(
        self, rows: Tensor, valid: Tensor | None = None, *, stored: Tensor | None = None, assigned: slice = slice(None)
    ) -> tuple[Tensor, Tensor] | None:
        return (self.centroids, assign(rows[assigned], self.centroids)) if len(self.centroids) else None


def _run(dump: Dump, device: torch.device, with_gradient: bool) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Return the terms of the loss (with the norm of the gradient) and the embeddings of the step."""
    loss = factories.build_loss(dump.recipe, dump.stage, int(dump.described["seed"]))
    if loss.memory is not None:
        assert dump.memory is not None
        loss.memory = _Used(dump.memory, device)  # type: ignore[assignment]
    prepare_model(dump.model, dump.stage, heads=bool(loss.reconstruct))
    dump.model.zero_grad(set_to_none=True)
    with nullcontext() if with_gradient else torch.no_grad():
        outputs = _encode(dump, device)
        terms = _terms(loss, dump, outputs, device)
    values = {name: float(term.detach()) for name, term in terms.items()}
    if with_gradient:
        scale = float(dump.described["loss_scale"])
        (terms["loss"] * scale).backward()
        gradients = [p.grad / scale for p in dump.model.parameters() if p.grad is not None]
        values["grad_norm"] = float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0
    return values, {m: out.embedding.detach().float() for m, out in outputs.items()}


def _terms(loss: CombinedLoss, dump: Dump, outputs: dict[str, Encoded], device: torch.device) -> dict[str, Tensor]:
    names = [name.removeprefix("valid.") for name in dump.batches[0] if name.startswith("valid.")]
    valid = {m: torch.cat([batch[f"valid.{m}"] for batch in dump.batches]).to(device) for m in names}
    whole = (dump.batches[0].get(name) for name in ("positives", "first_half"))
    positives, first_half = (None if tensor is None else tensor.to(device) for tensor in whole)
    return loss(outputs, valid, positives, first_half, dump.model.temperatures(dump.stage.pairs))


def _encode(dump: Dump, device: torch.device) -> dict[str, Encoded]:
    """Return the outputs for the rows of all processes, with the same rows in each forward pass as in the training."""
    training = dump.recipe.training
    inputs = [{k[6:]: t.to(device) for k, t in batch.items() if k.startswith("input.")} for batch in dump.batches]
    sizes = [len(next(iter(batch.values()))) if batch else 0 for batch in inputs]
    chunks = _chunks(sizes, training.chunk_clips)
    if training.batch_norm == "global":
        passes = [list(enumerate(together)) for together in zip(*chunks, strict=True)]
    else:
        passes = [[(rank, rows)] for rank, own in enumerate(chunks) for rows in own if rows.stop > rows.start]
    if training.chunk_clips and training.chunk_norm == "running":
        for module in dump.model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
    encoded: dict[tuple[int, int], dict[str, Encoded]] = {}
    for together in passes:
        joined = {
            name: _joined([inputs[rank][name][rows] for rank, rows in together]) for name in inputs[together[0][0]]
        }
        with _autocast(device, training.precision):
            outputs = dump.model(**joined)
        begin = 0
        for rank, rows in together:
            mine = slice(begin, begin := begin + rows.stop - rows.start)
            encoded[rank, rows.start] = {m: _rows_of(out, mine) for m, out in outputs.items()}
    parts = [encoded[key] for key in sorted(encoded)]
    whole = {m: _below(*(part[m] for part in parts)) for m in (parts or [{}])[0]}
    for name in dump.batches[0]:
        if name.startswith("embedding."):
            rows_BD = torch.cat([batch[name] for batch in dump.batches]).to(device)
            whole[name.removeprefix("embedding.")] = Encoded(rows_BD, rows_BD, None)
        elif name.startswith("target."):
            modality = name.removeprefix("target.")
            whole[modality] = whole[modality]._replace(target=torch.cat([b[name] for b in dump.batches]).to(device))
    return whole


def _chunks(sizes: list[int], chunk: int) -> list[list[slice]]:
    """Return the rows of each forward pass of each process. All have the same number of passes (`gradient_cache`)."""
    if not chunk or sum(sizes) <= chunk * len(sizes):
        return [[slice(0, size)] for size in sizes]
    count = max(-(-size // chunk) for size in sizes)
    bounds = [[round(i * size / count) for i in range(count + 1)] for size in sizes]
    return [[slice(a, b) for a, b in zip(own, own[1:], strict=False)] for own in bounds]


def _joined(parts: list[Tensor]) -> Tensor:
    """Concatenate rows. Texts (B, L, ...) of different length are padded with zeros, which a mask excludes."""
    longest = max(part.shape[1] for part in parts) if parts[0].ndim > 1 else 0
    return torch.cat(
        [
            part
            if part.ndim == 1 or part.shape[1] == longest
            else torch.cat([part, part.new_zeros(len(part), longest - part.shape[1], *part.shape[2:])], dim=1)
            for part in parts
        ]
    )


def _rows_of(out: Encoded, rows: slice) -> Encoded:
    last = out.reconstruction
    return Encoded(out.embedding[rows], out.target[rows], None if last is None else last[rows])


def _below(*several: Encoded) -> Encoded:
    last = [out.reconstruction for out in several if out.reconstruction is not None]
    return Encoded(
        torch.cat([out.embedding for out in several]),
        torch.cat([out.target for out in several]),
        torch.cat(last) if last else None,
    )


def _autocast(device: torch.device, precision: str) -> Any:
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


@contextmanager
def _watched(model: nn.Module) -> Iterator[dict[str, str]]:
    """Record the first module whose output is not finite (`output`), and the first one with such a gradient (`gradient`)."""
    first: dict[str, str] = {}

    def forward(name: str, module: nn.Module, out: Any) -> None:
        for tensor in out if isinstance(out, tuple) else (out,):
            if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
                continue
            if not bool(torch.isfinite(tensor).all()):
                first.setdefault("output", name)
            if tensor.requires_grad:
                tensor.register_hook(lambda grad: backward(name, grad))

    def backward(name: str, grad: Tensor) -> None:
        if not bool(torch.isfinite(grad).all()):
            first.setdefault("gradient", name)

    handles = [
        module.register_forward_hook(lambda module, _, out, name=name: forward(name, module, out))
        for name, module in model.named_modules()
        if name
    ]
    try:
        yield first
    finally:
        for handle in handles:
            handle.remove()


def _modules(first: dict[str, str], model: MCN, of_gradient: bool) -> list[str]:
    if "output" in first:
        return [f"first module whose output is not finite: {first['output']}"]
    if not of_gradient:
        return ["the outputs of all modules are finite; check the loss and its weights"]
    lines = []
    if "gradient" in first:
        lines.append(
            "all outputs are finite; the first gradient in the backward pass that is not finite is that of the output of "
            f"{first['gradient']}"
        )
    largest = {name: float(p.grad.abs().max()) for name, p in model.named_parameters() if p.grad is not None}
    if bad := [name for name, most in largest.items() if not isfinite(most)]:
        return [*lines, f"parameters whose gradient is not finite: {', '.join(bad[:SHOWN])}"]
    name = max(largest, key=lambda name: largest[name])
    return [
        *lines,
        f"all gradients are finite, but not their norm; {name} has the largest gradient, up to {largest[name]:.3g}",
    ]


def _rows(dump: Dump, embeddings: Mapping[str, Tensor]) -> list[str]:
    """Return lines on rows whose inputs or embeddings are extreme or not finite, with their videos."""
    lines = []
    names = list(dict.fromkeys(name for batch in dump.batches for name in batch if name.startswith("input.")))
    tensors = {name.removeprefix("input."): [batch[name] for batch in dump.batches if name in batch] for name in names}
    tensors |= {f"embedding of {m}": [rows] for m, rows in embeddings.items()}
    for name, parts in tensors.items():
        if not parts[0].is_floating_point():
            continue
        size = torch.cat(
            [p.detach().float().cpu().abs().reshape(len(p), -1).amax(1) for p in parts if p.numel()] or [torch.zeros(0)]
        )
        bad = (~torch.isfinite(size)).nonzero().flatten().tolist()
        if bad:
            lines.append(
                f"{name}: {len(bad)} of {len(size)} rows are not finite: {', '.join(_clip(dump, r) for r in bad[:SHOWN])}"
            )
        elif len(size) and float(size.max()) > EXTREME * max(float(size.median()), 1e-30):
            row = int(size.argmax())
            times = float(size.max()) / max(float(size.median()), 1e-30)
            lines.append(
                f"{name}: up to {float(size.max()):.3g}, {times:,.0f} times the median row: {_clip(dump, row)}"
            )
    sources = [one for clips in dump.clips for one in clips.get("bad_inputs", [])]
    return lines + [
        f"features that are not finite: video '{b['video']}', stream {b['stream']}, {b['file']}" for b in sources
    ]


def _clip(dump: Dump, row: int) -> str:
    clips = [clip for part in dump.clips for clip in part.get("clips", [])]
    if row >= len(clips):
        return f"row {row}"
    clip = clips[row]
    return f"row {row} (video '{clip['video']}', {clip['start_s']:.1f}-{clip['end_s']:.1f} s)"


def _weights(dump: Dump) -> list[str]:
    state = {**dump.model.state_dict(), **{f"{k} of the clustering": t for k, t in (dump.memory or {}).items()}}
    bad = [name for name, t in state.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    return [f"weights that were not finite before the step: {', '.join(bad[:SHOWN])}"] if bad else []


def _not_finite(terms: Mapping[str, float]) -> set[str]:
    return {name for name, value in terms.items() if not isfinite(value)}
