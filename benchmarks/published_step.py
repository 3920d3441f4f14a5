"""A joint training step as published: the arithmetic of MCN in plain torch, float32, with all tensors in the usual layout.

It is implemented from the description of the network and its losses: DAVEnet with 2-D convolutions over (B, 1, M, T) and a
plain mean over time, gated units, masked margin softmax over three pairs, reconstruction times 50, and Adam with its default
settings. There are no masks and no clustering; `bench_kmeans.py` measures clustering.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = (128, 256, 512, 1024)


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()

        def conv(width: int, channels: int, step: int) -> nn.Conv2d:
            return nn.Conv2d(channels, outputs, (1, width), stride=step, padding=(0, width // 2), bias=False)

        self.body = nn.Sequential(
            conv(9, inputs, stride), nn.BatchNorm2d(outputs), nn.ReLU(), conv(9, outputs, 1), nn.BatchNorm2d(outputs)
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(conv(1, inputs, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


class Gated(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear, self.gate = nn.Linear(inputs, outputs), nn.Linear(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y * torch.sigmoid(self.gate(y))


class PublishedNetwork(nn.Module):
    """Maps {`video` (B, F), `audio` (B, M, T), `text` (B, L, W)} to (embedding (B, D), target, reconstruction) per modality."""

    def __init__(self, video_dim: int, embed_dim: int, word_dim: int, hidden_dim: int, mel_bins: int = 40) -> None:
        super().__init__()
        stem = [nn.Conv2d(1, CHANNELS[0], (mel_bins, 1), bias=False), nn.BatchNorm2d(CHANNELS[0]), nn.ReLU()]
        blocks: list[nn.Module] = []
        for inputs, outputs in zip((CHANNELS[0], *CHANNELS), CHANNELS, strict=False):
            blocks += [Residual(inputs, outputs, 2), Residual(outputs, outputs, 1)]
        self.davenet = nn.Sequential(*stem, *blocks)
        self.video = Gated(video_dim, embed_dim)
        self.audio = nn.Sequential(Gated(CHANNELS[-1], CHANNELS[-1]), nn.Linear(CHANNELS[-1], embed_dim))
        self.words, self.text = nn.Linear(word_dim, embed_dim), Gated(embed_dim, embed_dim)

        def head(outputs: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(embed_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, outputs), nn.ReLU())

        self.heads = nn.ModuleDict(
            {"video": head(video_dim), "audio": head(CHANNELS[-1]), "text": head(embed_dim)},
        )

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        sound = self.davenet(inputs["audio"][:, None]).mean((2, 3))
        words = functional.relu(self.words(inputs["text"])).max(1).values
        found = {
            "video": (self.video(inputs["video"]), inputs["video"]),
            "audio": (self.audio(sound), sound),
            "text": (self.text(words), words),
        }
        return {m: (embedding, target, self.heads[m](embedding)) for m, (embedding, target) in found.items()}


def margin_softmax(first: Tensor, second: Tensor, margin: float = 0.001) -> Tensor:
    scores = first @ second.T
    scores = scores - margin * torch.eye(len(scores))
    truth = torch.arange(len(scores))
    return functional.cross_entropy(scores, truth) + functional.cross_entropy(scores.T, truth)


def published_loss(outputs: Mapping[str, tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Return the sum over three pairs, plus 50 x the sum of the mean squared errors, whose targets have a gradient."""
    video, audio, text = (outputs[m][0] for m in ("video", "audio", "text"))
    contrast = margin_softmax(text, video) + margin_softmax(audio, text) + margin_softmax(audio, video)
    return contrast + 50 * sum((again - target).square().mean() for _, target, again in outputs.values())


class PublishedStep:
    """A network and its optimizer; each call runs one training step."""

    def __init__(self, *, video_dim: int, embed_dim: int, word_dim: int, hidden_dim: int) -> None:
        self.network = PublishedNetwork(video_dim, embed_dim, word_dim, hidden_dim).train()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-4)

    def __call__(self, inputs: Mapping[str, Tensor]) -> float:
        loss = published_loss(self.network(inputs))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())
