"""The network: MCN and its building blocks, and the published checkpoint format."""

from trichord.layers.davenet import DAVEnet
from trichord.layers.encoders import Encoded
from trichord.layers.gating import GatedUnit
from trichord.nn.mcn import MCN
from trichord.nn.published import LoadReport

__all__ = ["MCN", "DAVEnet", "Encoded", "GatedUnit", "LoadReport"]
