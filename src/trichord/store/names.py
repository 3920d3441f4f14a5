"""Names of the files of a store that several modules need."""

from __future__ import annotations

ANNOTATIONS = "annotations.parquet"
ENCODERS = "encoders.json"  # stream -> fingerprint
SETTLED = "settled.jsonl"
