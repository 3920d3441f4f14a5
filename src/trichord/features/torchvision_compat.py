"""Import of torchvision together with a torch build for which its compiled part was not made."""

from __future__ import annotations

from types import ModuleType

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library: object = None  # a registration lasts as long as its library object


def import_torchvision() -> ModuleType:
    """Import torchvision and return the module.

    The torchvision of PyPI is compiled for torch with CUDA. With a CPU build of torch its compiled part cannot be loaded, and the
    import fails, because shape functions are declared for two operators that the compiled part would have defined. No model here
    uses these operators, so only their schemas are declared before the import is tried again. Nothing is changed if torchvision
    can be imported.
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
