"""Published releases into the store: HowTo100M, YouCook2, MSR-VTT."""

from trichord.releases.common import ImportSummary
from trichord.releases.howto100m import import_howto100m
from trichord.releases.msrvtt import import_msrvtt
from trichord.releases.youcook2 import import_youcook2

__all__ = ["ImportSummary", "import_howto100m", "import_msrvtt", "import_youcook2"]
