"""Published releases into the store: HowTo100M, YouCook2, MSR-VTT."""

from __future__ import annotations

from collections.abc import Callable

from trichord.releases.common import ImportSummary
from trichord.releases.howto100m import import_howto100m
from trichord.releases.msrvtt import import_msrvtt
from trichord.releases.youcook2 import import_youcook2

IMPORTERS: dict[str, Callable[..., ImportSummary]] = {
    "howto100m": import_howto100m,
    "youcook2": import_youcook2,
    "msrvtt": import_msrvtt,
}

__all__ = ["IMPORTERS", "ImportSummary", "import_howto100m", "import_msrvtt", "import_youcook2"]
