"""Importing torchvision beside a torch build that its compiled part was not made for."""

from __future__ import annotations

from types import ModuleType

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library: object = None  # a registration lives as long as its library object


def import_torchvision() -> ModuleType:
    """The torchvision module.

    PyPI's torchvision is compiled for CUDA torch. Beside CPU torch its compiled part does not load, and the import
    fails because shape functions are declared for two operators that the compiled part would have defined. No model
    here uses them, so their schemas alone are declared and the import tried again. Where torchvision imports as it is,
    nothing is changed.
    """
    global _library
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error) or "does not exist" not in str(error):
            raise
        import torch

        library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in _SCHEMAS:
            library.define(schema)
        _library = library
        import torchvision
    return torchvision
