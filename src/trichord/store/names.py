"""Names of files in a store that several modules use."""

from __future__ import annotations

ANNOTATIONS = "annotations.parquet"
ENCODERS = "encoders.json"  # the fingerprint of each stream's encoder
SETTLED = "settled.jsonl"
