"""The clustering loss of MCN (Chen et al., Multimodal Clustering Networks, 2021).

The loss pulls embeddings towards centroids that k-means finds among past embeddings.

Shape letters: B rows of a batch, D joint width, K centroids, Q rows of the queue.
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
    """Compute the cross-entropy between each embedding and its assigned centroid.

    The loss is mean_i [logsumexp_k l_ik - l_i,label(i)] with l = (embedding . centroid^T - margin at the label) / temperature
    (Chen et al., MCN, 2021, with the margin of the published code). MCN averages it over the modalities and uses one label per
    clip. Computed on the mean of the three embeddings, it is the fused variant.

    Args:
        embedding: Embeddings of shape (B, D).
        centroids: Centroids of shape (K, D). The caller decides whether they carry a gradient (those of k-means do not).
        labels: Index of the assigned centroid, of shape (B,), int64. Labels of invalid rows are not read.
        margin: Margin that is subtracted from the score of the assigned centroid.
        valid: Mask of the valid rows, of shape (B,), bool. None means that all rows are valid.
        temperature: Temperature that divides the scores. The published value is 1.0.
        count: Number of valid rows in all processes. If given, the sum over these rows is divided by it, so that the results of
            all processes add up to the mean.

    Returns:
        A scalar. It is 0 if no row is valid.

    Raises:
        ValueError: If the temperature is not positive.

    Example:
        >>> import torch
        >>> from trichord.losses import cluster_contrast
        >>> centroids = torch.eye(2)
        >>> cluster_contrast(torch.tensor([[4.0, 0.0]]), centroids, torch.tensor([0]), margin=0.0)
        tensor(0.0181)
        >>> cluster_contrast(torch.tensor([[4.0, 0.0]]), centroids, torch.tensor([1]), margin=0.0)
        tensor(4.0181)
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; give a positive number")
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
    """A queue of past embeddings and the centroids that k-means finds in it.

    The queue is a ring buffer of `size` rows, independent of the batch size. The first fit happens as soon as the queue holds
    `num_clusters` rows; until then `update` returns None. Afterwards, the centroids are refitted every `refit_every` updates,
    starting from the current centroids. With `wait_until_full`, as in the published code, the queue is used only once it is full,
    and earlier fits use the current batch alone. The published code also starts a new fit in every epoch; to reproduce this, call
    `reset_centroids` at the start of each epoch.

    The random initialization of a fit depends only on the seed and the index of the fit. If several processes pass the same
    gathered rows, their memories stay equal.

    Args:
        num_clusters: Number of clusters, K.
        size: Number of rows of the queue, Q. At least `num_clusters`.
        refit_every: Number of updates between two fits.
        normalize: Whether to fit spherical k-means, as in `fit_kmeans`.
        empty: Treatment of empty clusters, as in `fit_kmeans`.
        max_iterations: Maximum number of iterations of a fit, as in `fit_kmeans`.
        tolerance: Stopping threshold of a fit, as in `fit_kmeans`.
        seed: Random seed of the initializations.
        dtype: Data type of the stored rows. float16 halves the memory.
        wait_until_full: Whether to fit on the current batch alone until the queue is full, as in the published code.
        path: Implementation of the assignment, as in `fit_kmeans`. None selects the fastest one.

    Attributes:
        objective: Mean of 1 - cosine between the rows and their centroids in the last fit, or None before the first fit.
            `reset_centroids` keeps it.
        num_iterations: Number of iterations of the last fit, or 0 before the first fit. `reset_centroids` keeps it.

    Raises:
        TrichordError: If a count is below 1, or if `size` is smaller than `num_clusters`.

    Example:
        >>> import torch
        >>> from trichord.losses import ClusterMemory
        >>> memory = ClusterMemory(num_clusters=2, size=4)
        >>> memory.update(torch.tensor([[1.0, 0.0]])) is None
        True
        >>> centroids, labels = memory.update(torch.tensor([[0.0, 1.0]]))
        >>> centroids[labels]
        tensor([[0., 1.]])
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
                f"a queue of {size} rows is too small for {num_clusters} clusters; enlarge the queue or request fewer clusters"
            )
        self.num_clusters, self.size, self.refit_every = num_clusters, size, refit_every
        self.normalize, self.empty = normalize, empty
        self.max_iterations, self.tolerance = max_iterations, tolerance
        self.seed, self.dtype, self.wait_until_full = seed, dtype, wait_until_full
        self.path = path
        self.queue: torch.Tensor | None = None
        self.centroids: torch.Tensor | None = None
        self.num_rows = 0  # number of filled rows of the queue
        self.position = 0  # index at which the next row is written
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
        """Store a batch, refit the centroids if a fit is due, and assign the batch to the centroids.

        Args:
            rows: Embeddings of shape (B, D), for any B. No gradient flows into them.
            valid: Mask of the rows that hold embeddings, of shape (B,), bool. Other rows are not stored, and their labels are
                meaningless. None means that all rows are valid.
            stored: Mask of the rows that enter the queue, of shape (B,), bool. None stores all valid rows. The published code
                stores the first half of the clips of each video.
            assigned: Slice of the rows that are assigned to centroids.

        Returns:
            The centroids of shape (K, D), float32, and the labels of the rows in `assigned`, int64. None before the first fit,
            that is, while fewer than K rows are available.

        Raises:
            TrichordError: If the width of the rows differs from the width of the queue.

        Example:
            >>> import torch
            >>> from trichord.losses import ClusterMemory
            >>> memory = ClusterMemory(num_clusters=2, size=4)
            >>> rows = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0]])
            >>> centroids, labels = memory.update(rows)
            >>> centroids.shape, labels.shape
            (torch.Size([2, 2]), torch.Size([3]))
            >>> bool(labels[0] == labels[2]), bool(labels[0] == labels[1])
            (True, False)
        """
        rows = rows.detach()
        keep = torch.ones(len(rows), dtype=torch.bool, device=rows.device) if valid is None else valid
        self._push(rows[keep if stored is None else keep & stored])
        self.steps += 1
        self.steps_since_fit += 1
        waits = self.wait_until_full and self.num_rows < self.size
        available = rows[keep] if waits or self.queue is None else self.queue[: self.num_rows]
        due = self.centroids is None or self.steps_since_fit >= self.refit_every
        if due and len(available) >= self.num_clusters:
            self._fit(available)
        if self.centroids is None:
            return None
        self.centroids = self.centroids.to(rows.device)
        return self.centroids, assign(rows[assigned], self.centroids, path=self.path)

    def reset_centroids(self) -> None:
        """Discard the centroids, so that the next update fits from a new random initialization. The queue is kept.

        Example:
            >>> import torch
            >>> from trichord.losses import ClusterMemory
            >>> memory = ClusterMemory(num_clusters=1, size=4)
            >>> centroids, labels = memory.update(torch.eye(2))
            >>> memory.reset_centroids()
            >>> memory.centroids is None, memory.num_rows
            (True, 2)
        """
        self.centroids = None

    def _push(self, rows: torch.Tensor) -> None:
        if self.queue is None:
            self.queue = torch.zeros(self.size, rows.shape[1], dtype=self.dtype, device=rows.device)
        if self.queue.shape[1] != rows.shape[1]:
            raise TrichordError(
                f"the cluster queue contains rows of width {self.queue.shape[1]}, but the embeddings have width {rows.shape[1]}; "
                "start a new run or use the joint width of the checkpoint"
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
        """Return the state as tensors.

        Returns:
            The filled rows of the queue, the centroids (without rows before the first fit), the counters, and the objective and
            number of iterations of the last fit (empty before the first fit).

        Example:
            >>> import torch
            >>> from trichord.losses import ClusterMemory
            >>> memory = ClusterMemory(num_clusters=1, size=4)
            >>> centroids, labels = memory.update(torch.eye(2))
            >>> {name: tuple(tensor.shape) for name, tensor in memory.state_dict().items()}
            {'rows': (2, 2), 'centroids': (1, 2), 'counters': (4,), 'last_fit': (2,)}
        """
        no_rows = torch.zeros(0, 0)
        last_fit = [] if self.objective is None else [self.objective, self.num_iterations]
        return {
            "rows": no_rows if self.queue is None else self.queue[: self.num_rows].clone(),
            "centroids": no_rows if self.centroids is None else self.centroids.clone(),
            "counters": torch.tensor([self.position, self.steps, self.num_fits, self.steps_since_fit]),
            "last_fit": torch.tensor(last_fit, dtype=torch.float64),
        }

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore a state that `state_dict` returned.

        Args:
            state: State of a memory with the same size and number of clusters.

        Raises:
            TrichordError: If the state has another queue size or another number of clusters.

        Example:
            >>> import torch
            >>> from trichord.losses import ClusterMemory
            >>> memory, restored = ClusterMemory(1, size=4), ClusterMemory(1, size=4)
            >>> centroids, labels = memory.update(torch.eye(2))
            >>> restored.load_state_dict(memory.state_dict())
            >>> torch.equal(restored.centroids, memory.centroids)
            True
        """
        rows, centroids = state["rows"], state["centroids"]
        if len(rows) > self.size or (0 < len(rows) < self.size and int(state["counters"][0]) != len(rows)):
            raise TrichordError(
                f"the saved cluster queue does not fit into a queue of {self.size} rows; "
                "resume with the queue size of the saved run"
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
        last_fit = state["last_fit"].tolist() if "last_fit" in state else []  # states of older versions lack this entry
        self.objective = last_fit[0] if last_fit else None
        self.num_iterations = int(last_fit[1]) if last_fit else 0
