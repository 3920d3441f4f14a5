"""The summary of an extraction, which is printed at its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from trichord.extraction.progress import clock
from trichord.store.ledger import LEDGER


@dataclass
class ExtractSummary:
    """The results of an extraction.

    `splits` counts all items of the collection in the store. `num_postponed` counts skipped items and unlisted folders that failed
    because of system faults; the next run tries them again.
    """

    store: Path
    collection: str
    encoders: str
    num_videos: int
    num_added: int = 0
    num_skipped: int = 0
    num_present: int = 0
    num_renewed: int = 0
    num_leased: int = 0
    num_postponed: int = 0
    video_s: float = 0.0
    elapsed_s: float = 0.0
    decode_s: float = 0.0
    encode_s: float = 0.0
    interruption: KeyboardInterrupt | None = None
    splits: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C or another signal stopped the run; `interruption` is the exception."""
        return self.interruption is not None

    def __str__(self) -> str:
        splits = ", ".join(f"{count} {split}" for split, count in sorted(self.splits.items())) or "nothing"
        lines = [
            f"{self.num_added} videos ({self.video_s:.0f} s) were extracted in {clock(self.elapsed_s)} (encoders: {self.encoders})",
            f"{self.num_present} already existed, {self.num_skipped} were skipped; '{self.collection}' now has {splits}",
        ]
        if self.num_renewed:
            were = "was" if self.num_renewed == 1 else "were"
            lines.append(f"{self.num_renewed} more {were} updated because of new captions or newer rules")
        if self.num_leased:
            lines.append(f"{self.num_leased} are being extracted by other processes")
        if self.num_skipped:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.failures.items()))
            lines.append(
                f"reasons for skipping ({kinds}): {self.store / LEDGER}; use --retry CLASS to try a class again"
            )
        if self.interrupted:
            lines.append("interrupted; finished items are stored; run the same command again to continue")
        shown = self.notes[:10]
        more = [f"... and {len(self.notes) - len(shown)} more notes"] if len(self.notes) > len(shown) else []
        last = []
        if self.num_postponed:
            problem = (
                "were not done because of system faults"
                if self.num_postponed > 1
                else ("was not done because of a system fault")
            )
            last = [f"{self.num_postponed} {problem}; fix the cause, then run the same command again"]
        return "\n".join([*lines, *(f"note: {text}" for text in shown), *more, *last])
