"""Where figures are drawn: names of collections, videos and captions come from outside and are drawn letter by letter."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

LITERAL: Mapping[str, Any] = {"text.parse_math": False, "text.usetex": False}  # else `$5 and $10` would be a formula


@contextmanager
def drawing(look: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Within the block matplotlib draws text literally, with its default settings and those of `look`, whatever the user's
    matplotlibrc says. Letters that the font lacks are drawn as boxes, without a warning."""
    import matplotlib
    from matplotlib import font_manager

    log = logging.getLogger(font_manager.__name__)
    level = log.level
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        log.setLevel(logging.ERROR)
        try:
            matplotlib.rcdefaults()
            settings: Any = {**(look or {}), **LITERAL}
            matplotlib.rcParams.update(settings)
            yield
        finally:
            log.setLevel(level)
