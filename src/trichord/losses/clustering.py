"""The clustering loss of MCN (Chen et al., Multimodal Clustering Networks, 2021): embeddings are drawn to centroids
that k-means finds among past embeddings.

B rows of a batch, D joint width, K centroids, Q rows of the queue.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional

from trichord.errors import TrichordError
from trichord.losses.kmeans import Empty, Path, assign, fit_kmeans
from trichord.losses.precision import full_precision


@full_precision
def cluster_contrast(
    embedding: torch.Tensor,
    centroids: torch.Tensor,
    labels: torch.Tensor,
    margin: float = 0.001,
    valid: torch.Tensor | None = None,
    temperature: float = 1.0,
    count: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross-entropy of each embedding to its centroid (MCN, with the margin of the published code).

    mean_i [logsumexp_k l_ik - l_i,label(i)], l = (embedding . centroid^T - margin at the label) / temperature.
    MCN averages it over the modalities, with one label per clip; on the mean of the three embeddings it is the fused
    variant.

    Args:
        embedding: (B, D).
        centroids: (K, D); their gradient is the caller's choice (k-means gives them none).
        labels: (B,) int64, assigned centroid; those of rows that are not valid are not read.
        margin: subtracted from the score of the assigned centroid.
        valid: (B,) bool, or None for all. When none is valid the loss is 0.
        temperature: divides the scores; 1.0 is published.
        count: valid rows of all processes, where these are the part of one: its share of the mean.
    """
    if not temperature > 0:
        raise ValueError("the temperature must be positive")
    if valid is not None:
        embedding, labels = embedding[valid], labels[valid]
    if not len(embedding):
        return embedding.sum()
    scores = embedding @ centroids.to(embedding.dtype).T
    scores = scores - margin * functional.one_hot(labels, len(centroids)).to(scores.dtype)
    if count is not None:
        return functional.cross_entropy(scores / temperature, labels, reduction="sum") / count
    return functional.cross_entropy(scores / temperature, labels)


class ClusterMemory:
    """A queue of past embeddings, the centroids found in it, and when to look for them again.

    The queue is a ring of `size` rows, whatever the batch size. The first fit happens as soon as the queue holds
    `num_clusters` rows; until then `update` gives None. After that every `refit_every` updates, from the centroids
    that there are. With `wait_until_full`, as published, the queue counts only once it is full, and a fit before that
    sees the batch alone. (Published too: a fresh fit per epoch; call `reset_centroids` at the start of an epoch.)
    The random draw of a fit depends on the seed and the number of the fit alone. With several processes, give each the
    same gathered rows; the memories then stay equal.

    `objective` (mean of 1 - cosine of the fitted rows to their centroids) and `num_iterations` tell of the last fit; None
    and 0 before the first. They outlive `reset_centroids`.

    Args:
        num_clusters: K.
        size: Q, at least `num_clusters`.
        refit_every: updates between two fits.
        normalize, empty, max_iterations, tolerance: as for `fit_kmeans`.
        seed: of the random draws.
        dtype: of the stored rows; float16 halves the memory.
        wait_until_full: fit on the batch alone while the queue is not full, as published.
        path: as for `fit_kmeans`: None takes the fastest one, "plain" the slow one.
    """

    def __init__(
        self,
        num_clusters: int = 256,
        size: int = 40960,
        refit_every: int = 20,
        *,
        normalize: bool = True,
        empty: Empty = "reseed",
        max_iterations: int = 100,
        tolerance: float = 1e-4,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        wait_until_full: bool = False,
        path: Path | None = None,
    ) -> None:
        if num_clusters < 1 or refit_every < 1:
            raise TrichordError(f"num_clusters ({num_clusters}) and refit_every ({refit_every}) must be at least 1")
        if size < num_clusters:
            raise TrichordError(
                f"a queue of {size} rows cannot give {num_clusters} clusters; enlarge it or ask for fewer"
            )
        self.num_clusters, self.size, self.refit_every = num_clusters, size, refit_every
        self.normalize, self.empty = normalize, empty
        self.max_iterations, self.tolerance = max_iterations, tolerance
        self.seed, self.dtype, self.wait_until_full = seed, dtype, wait_until_full
        self.path = path
        self.queue: torch.Tensor | None = None
        self.centroids: torch.Tensor | None = None
        self.num_rows = 0  # filled rows of the queue
        self.position = 0  # where the next row goes
        self.steps = 0
        self.num_fits = 0
        self.steps_since_fit = 0
        self.objective: float | None = None  # of the last fit
        self.num_iterations = 0  # of the last fit

    @torch.no_grad()
    def update(
        self,
        rows: torch.Tensor,
        valid: torch.Tensor | None = None,
        *,
        stored: torch.Tensor | None = None,
        assigned: slice = slice(None),
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Store a batch, refit if it is time, and assign the batch.

        Args:
            rows: (B, D), any B; read without gradient.
            valid: (B,) bool, rows that are embeddings at all; the others are not stored and their labels mean nothing.
            stored: (B,) bool, rows that enter the queue; None: all valid ones. (Published: the first half of each
                video's clips.)
            assigned: which rows get labels.

        Returns:
            (centroids (K, D) float32, labels of the rows `assigned`, int64), or None before the first fit: while there are
            fewer than K rows.
        """
        rows = rows.detach()
        keep = torch.ones(len(rows), dtype=torch.bool, device=rows.device) if valid is None else valid
        self._push(rows[keep if stored is None else keep & stored])
        self.steps += 1
        self.steps_since_fit += 1
        waits = self.wait_until_full and self.num_rows < self.size
        found = rows[keep] if waits or self.queue is None else self.queue[: self.num_rows]
        due = self.centroids is None or self.steps_since_fit >= self.refit_every
        if due and len(found) >= self.num_clusters:
            self._fit(found)
        if self.centroids is None:
            return None
        self.centroids = self.centroids.to(rows.device)
        return self.centroids, assign(rows[assigned], self.centroids, path=self.path)

    def reset_centroids(self) -> None:
        """Forget the centroids: the next update fits from a new random draw. The queue stays."""
        self.centroids = None

    def _push(self, rows: torch.Tensor) -> None:
        if self.queue is None:
            self.queue = torch.zeros(self.size, rows.shape[1], dtype=self.dtype, device=rows.device)
        if self.queue.shape[1] != rows.shape[1]:
            raise TrichordError(
                f"the cluster queue holds rows of width {self.queue.shape[1]}, but the embeddings are {rows.shape[1]} "
                "wide; start afresh or use the joint width of the checkpoint"
            )
        self.queue = self.queue.to(rows.device)
        rows = rows[-self.size :]
        places = (self.position + torch.arange(len(rows), device=rows.device)) % self.size
        self.queue[places] = rows.to(self.dtype)
        self.position = (self.position + len(rows)) % self.size
        self.num_rows = min(self.size, self.num_rows + len(rows))

    def _fit(self, rows: torch.Tensor) -> None:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.num_fits) % 2**63)
        fit = fit_kmeans(
            rows,
            self.num_clusters,
            max_iterations=self.max_iterations,
            tolerance=self.tolerance,
            init_centroids=self.centroids,
            generator=generator,
            normalize=self.normalize,
            empty=self.empty,
            path=self.path,
        )
        self.centroids = fit.centroids
        self.objective, self.num_iterations = fit.objective, fit.iterations
        self.num_fits += 1
        self.steps_since_fit = 0

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything that changes, as tensors: the filled rows, the centroids (no rows if there are none), counters, and
        objective and iterations of the last fit (empty if there was none)."""
        nothing = torch.zeros(0, 0)
        last_fit = [] if self.objective is None else [self.objective, self.num_iterations]
        return {
            "rows": nothing if self.queue is None else self.queue[: self.num_rows].clone(),
            "centroids": nothing if self.centroids is None else self.centroids.clone(),
            "counters": torch.tensor([self.position, self.steps, self.num_fits, self.steps_since_fit]),
            "last_fit": torch.tensor(last_fit, dtype=torch.float64),
        }

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on where `state_dict` was taken. Raises TrichordError if the state has another size or K."""
        rows, centroids = state["rows"], state["centroids"]
        if len(rows) > self.size or (0 < len(rows) < self.size and int(state["counters"][0]) != len(rows)):
            raise TrichordError(
                f"the saved cluster queue does not fit one of {self.size} rows; resume with the size of the saved run"
            )
        if len(centroids) not in (0, self.num_clusters):
            raise TrichordError(
                f"the saved state has {len(centroids)} clusters instead of {self.num_clusters}; "
                "resume with the number of clusters of the saved run"
            )
        self.queue = None
        if len(rows):
            self.queue = torch.zeros(self.size, rows.shape[1], dtype=self.dtype, device=rows.device)
            self.queue[: len(rows)] = rows.to(self.dtype)
        self.num_rows = len(rows)
        self.centroids = centroids.clone() if len(centroids) else None
        self.position, self.steps, self.num_fits, self.steps_since_fit = (int(x) for x in state["counters"])
        last_fit = state["last_fit"].tolist() if "last_fit" in state else []  # states of older versions lack it
        self.objective = last_fit[0] if last_fit else None
        self.num_iterations = int(last_fit[1]) if last_fit else 0
