"""Importers of published releases, and exports of a store into published layouts.

An importer reads the files of a release (HowTo100M, YouCook2, MSR-VTT, LSMDC, CrossTask, Mining YouTube, UCF101, HMDB51) and writes
items into a store. `export_store` does the reverse. Extracting features from media files is the task of `trichord.extraction`.
"""

from __future__ import annotations

from collections.abc import Callable

from trichord.releases.action_pickles import import_actions
from trichord.releases.common import ImportSummary
from trichord.releases.crosstask import import_crosstask
from trichord.releases.export import ExportSummary, export_store
from trichord.releases.howto100m import import_howto100m
from trichord.releases.lsmdc import import_lsmdc
from trichord.releases.mining_youtube import import_mining_youtube
from trichord.releases.msrvtt import import_msrvtt
from trichord.releases.npy import import_npy
from trichord.releases.webdataset import import_webdataset
from trichord.releases.world_steps import import_world_steps
from trichord.releases.youcook2 import import_youcook2

IMPORTERS: dict[str, Callable[..., ImportSummary]] = {
    "howto100m": import_howto100m,
    "youcook2": import_youcook2,
    "msrvtt": import_msrvtt,
    "lsmdc": import_lsmdc,
    "crosstask": import_crosstask,
    "mining-youtube": import_mining_youtube,
    "world-steps": import_world_steps,
    "actions": import_actions,
    "webdataset": import_webdataset,
    "npy": import_npy,
}

__all__ = [
    "IMPORTERS",
    "ExportSummary",
    "ImportSummary",
    "export_store",
    "import_actions",
    "import_crosstask",
    "import_howto100m",
    "import_lsmdc",
    "import_mining_youtube",
    "import_msrvtt",
    "import_npy",
    "import_webdataset",
    "import_world_steps",
    "import_youcook2",
]
