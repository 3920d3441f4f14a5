"""The network MCN, and the format of its published checkpoints.

`MCN` combines one encoder per modality, and `published` reads and writes checkpoints of MCN, AVLnet and HowTo100M. The building
blocks live in `trichord.layers` and are exported here as well; losses and training live in `trichord.losses` and
`trichord.training`.
"""

from trichord.layers.davenet import DAVEnet
from trichord.layers.encoders import Encoded
from trichord.layers.gating import GatedUnit
from trichord.nn.mcn import MCN
from trichord.nn.published import LoadReport

__all__ = ["MCN", "DAVEnet", "Encoded", "GatedUnit", "LoadReport"]
