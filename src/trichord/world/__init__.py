"""The built-in world: a generator of narrated how-to videos whose content is known.

The videos are rendered to real media files with caption files, and the content of every step is recorded in `world.json`. The
package also measures how much each modality reveals of the content. Features are extracted from the files like from any other
video, by `trichord.extraction`.
"""

from trichord.world.render import WorldSummary, write_world
from trichord.world.truth import world_information

__all__ = ["WorldSummary", "world_information", "write_world"]
