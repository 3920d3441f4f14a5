"""Settings of matplotlib, under which names from files (collections, videos, captions) are drawn literally."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

LITERAL: Mapping[str, Any] = {"text.parse_math": False, "text.usetex": False}  # `$5 and $10` is not a formula


@contextmanager
def drawing(look: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Let matplotlib draw text literally in the block, with its default settings instead of those of the user.

    Characters that the font lacks are drawn as boxes, without a warning.

    Args:
        look: Settings of matplotlib that are added to the defaults.
    """
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
