"""The built-in world: narrated how-to videos as real files, of which it is known what happens in them."""

from trichord.world.render import WorldSummary, write_world

__all__ = ["WorldSummary", "write_world"]
