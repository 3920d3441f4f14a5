"""The examples in the docstrings of `trichord.evaluation` and of `Embedder` run and give the results that they show."""

from __future__ import annotations

import doctest
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

import numpy as np
import pytest

import trichord.evaluation
from trichord.embedder import Embedder, embedder
from trichord.embedder.folder import Parts
from trichord.embedder.vocabulary import Vocabulary
from trichord.evaluation import ranks
from trichord.nn import MCN
from trichord.store.words import WordVectors
from trichord.tasks.benchmarks import ScoringSettings
from trichord.training.models import TrainedModel

MODULES = [import_module(f"trichord.evaluation.{m.name}") for m in iter_modules(trichord.evaluation.__path__)]
WITH_EXAMPLES = [m for m in MODULES if any(test.examples for test in doctest.DocTestFinder().find(m))]
WORDS = ["stir", "the", "soup", "cut", "bread"]


def tiny_embedder() -> Embedder:
    """Return a model with random weights that reads the words of the examples, and video features of width 16."""
    network = MCN(modalities=("video", "text"), embed_dim=8, video_dim=16, word_dim=4, reconstruction_dim=None)
    vectors = np.random.default_rng(0).standard_normal((len(WORDS), 4), dtype=np.float32)
    vocabulary = Vocabulary(WordVectors(WORDS, vectors, "examples", lowercase=True))
    scoring = ScoringSettings(("visual_2d",), min_clip_s=0.0, audio_frames=100, max_words=6, cosine=True)
    return Embedder(Parts(TrainedModel(network, ("video", "text")), scoring, vocabulary=vocabulary))


@pytest.mark.parametrize("module", WITH_EXAMPLES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_examples_give_the_results_that_they_show(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0


def test_the_examples_of_an_embedder() -> None:
    result = doctest.testmod(embedder, extraglobs={"embedder": tiny_embedder()})
    assert result.failed == 0 and result.attempted > 10


def test_the_public_functions_and_methods_have_an_example() -> None:
    documented = {
        test.name.rpartition(".")[2]
        for module in (ranks, embedder)
        for test in doctest.DocTestFinder().find(module)
        if test.examples
    }
    methods = {name for name, value in vars(Embedder).items() if not name.startswith("_") and callable(value)}
    methods |= {"from_pretrained", "from_run", "from_published"}
    assert {"retrieval_metrics", "retrieval_ranks", *methods} <= documented
