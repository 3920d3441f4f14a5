"""Reports on studies and evaluations, as a page and in other formats, and the published figures that they show."""
