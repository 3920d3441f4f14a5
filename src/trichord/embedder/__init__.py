"""Models that take strings, files and arrays: with all that leads from these to the joint space, as a folder or on the hub."""

from trichord.embedder.embedder import Embedder

__all__ = ["Embedder"]
