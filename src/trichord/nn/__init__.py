"""The network: MCN and its building blocks, and the published checkpoint format."""

from trichord.nn.davenet import DAVEnet
from trichord.nn.gating import GatedUnit
from trichord.nn.mcn import MCN, Encoded
from trichord.nn.published import LoadReport

__all__ = ["MCN", "DAVEnet", "Encoded", "GatedUnit", "LoadReport"]
