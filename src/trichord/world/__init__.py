"""The built-in world: narrated how-to videos as real files, of which it is known what happens in them."""

from trichord.world.render import WorldSummary, write_world
from trichord.world.truth import world_information

__all__ = ["WorldSummary", "world_information", "write_world"]
