from __future__ import annotations

import pytest

from odd_media import OddFile, odd_media


@pytest.fixture(scope="session")
def odd(tmp_path_factory: pytest.TempPathFactory) -> dict[str, OddFile]:
    """Irregular media files by name, which tests must not change."""
    return odd_media(tmp_path_factory.mktemp("odd"))
