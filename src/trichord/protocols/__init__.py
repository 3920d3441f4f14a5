"""Protocols: named ways to score a model, or embeddings, on named clips. The measures themselves are in `evaluation`."""
