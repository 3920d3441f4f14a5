"""Retrieval tasks of `mteb` over given clips, and a model of the narrated world, shared by tests of the adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mteb.abstasks import AbsTask
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.abstasks.zeroshot_classification import AbsTaskZeroShotClassification

MODALITIES = {"t": "text", "v": "video", "a": "audio"}
CATEGORIES = (
    "t2v",
    "v2t",
    "t2a",
    "a2t",
    "v2a",
    "a2v",
    "t2va",
    "va2t",
    "vt2a",
    "at2v",
)  # all of mteb with disjoint sides
# of video, audio and text; it has no a2vt and no v2at


def metadata_of(name: str, kind: str, category: str, main_score: str) -> TaskMetadata:
    return TaskMetadata(
        name=name,
        description="Clips of a rendered world.",
        reference="https://example.org/world",
        dataset={"path": "none/none", "revision": "1"},
        type=kind,
        category=category,
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=main_score,
        modalities=sorted({MODALITIES[letter] for letter in category.replace("c", "t") if letter != "2"}),
        date=("2020-01-01", "2020-01-02"),
        domains=["Instructional"],
        task_subtypes=["Caption Pairing"],
        license="apache-2.0",
        annotations_creators="derived",
        dialect=[],
        sample_creation="created",
        bibtex_citation="",
    )


def retrieval_task(
    category: str,
    clips: dict[str, list[Any]],
    features: dict[str, Any] | None = None,
    truths: dict[str, dict[str, int]] | None = None,
) -> AbsTaskRetrieval:
    """Return a task of mteb whose queries and documents are the two sides of the same clips.

    Args:
        category: Category of mteb.
        clips: Column (text, video, audio) -> one item per clip.
        features: Types of `datasets`, by column, to which the items are cast.
        truths: Query -> document -> 1; None means each query's own clip.
    """
    from datasets import Dataset

    def side(letters: str) -> Dataset:
        columns = [MODALITIES[letter] for letter in letters]
        rows = {c: clips[c] for c in columns}
        dataset = Dataset.from_dict({"id": [str(i) for i in range(len(rows[columns[0]]))], **rows})
        for column in set(columns) & set(features or {}):
            dataset = dataset.cast_column(column, features[column])
        return dataset

    queries, documents = (side(letters) for letters in category.split("2"))

    class WorldRetrieval(AbsTaskRetrieval):
        metadata = metadata_of(f"World{category.upper()}Retrieval", "Any2AnyRetrieval", category, "ndcg_at_10")

        def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
            relevant = truths or {name: {name: 1} for name in queries["id"]}
            split = RetrievalSplitData(queries=queries, corpus=documents, relevant_docs=relevant, top_ranked=None)
            self.dataset, self.data_loaded = {"default": {"test": split}}, True

    return WorldRetrieval()


def zero_shot_task(audio: list[Any], truth: list[int], labels: list[str]) -> AbsTaskZeroShotClassification:
    """Return a task of mteb that asks for the class of each sound."""
    from datasets import Dataset, DatasetDict

    class WorldZeroShot(AbsTaskZeroShotClassification):
        metadata = metadata_of("WorldZeroShot", "AudioZeroshotClassification", "a2t", "accuracy")
        input_column_name = "audio"

        def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
            self.dataset = DatasetDict(test=Dataset.from_dict({"audio": audio, "label": truth}))
            self.data_loaded = True

        def get_candidate_labels(self) -> list[str]:
            return labels

    return WorldZeroShot()


def run(encoder: Any, task: AbsTask, predictions: Path | None = None) -> dict[str, float]:
    """Return the scores of mteb's own evaluator."""
    import mteb

    result = mteb.evaluate(
        encoder, task, cache=None, co2_tracker=False, show_progress_bar=False, num_proc=1,
        encode_kwargs={"batch_size": 5, "show_progress_bar": False}, prediction_folder=predictions,
    )  # fmt: skip
    return dict(result.task_results[0].scores["test"][0])
