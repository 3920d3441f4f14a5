"""Embed strings, files and arrays with a trained model.

A model is saved with everything that leads from these inputs to the joint space (encoders, word vectors, settings), as a folder or
on the Hugging Face hub. This package writes and reads such folders and embeds single inputs. Extraction of whole data sets into a
store is in `trichord.extraction`, and evaluation on benchmarks in `trichord.tasks` and `trichord.study`.
"""

from trichord.embedder.embedder import Embedder

__all__ = ["Embedder"]
