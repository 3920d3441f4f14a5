"""Published releases into the store (HowTo100M, YouCook2, MSR-VTT, LSMDC), and a store into layouts that others read."""

from __future__ import annotations

from collections.abc import Callable

from trichord.releases.common import ImportSummary
from trichord.releases.export import ExportSummary, export_store
from trichord.releases.howto100m import import_howto100m
from trichord.releases.lsmdc import import_lsmdc
from trichord.releases.msrvtt import import_msrvtt
from trichord.releases.npy import import_npy
from trichord.releases.webdataset import import_webdataset
from trichord.releases.youcook2 import import_youcook2

IMPORTERS: dict[str, Callable[..., ImportSummary]] = {
    "howto100m": import_howto100m,
    "youcook2": import_youcook2,
    "msrvtt": import_msrvtt,
    "lsmdc": import_lsmdc,
    "webdataset": import_webdataset,
    "npy": import_npy,
}

__all__ = [
    "IMPORTERS",
    "ExportSummary",
    "ImportSummary",
    "export_store",
    "import_howto100m",
    "import_lsmdc",
    "import_msrvtt",
    "import_npy",
    "import_webdataset",
    "import_youcook2",
]
