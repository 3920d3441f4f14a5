"""A headless Chromium, if it is installed: opens a page offline, takes a screenshot and returns the resulting page."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--proxy-server=127.0.0.1:9",  # there is none: nothing leaves this machine
)


def find_chromium() -> str | None:
    """Return the command of the browser: TRICHORD_CHROMIUM if it is set, otherwise the first that is installed."""
    if configured := os.environ.get("TRICHORD_CHROMIUM"):
        return shutil.which(configured)
    return next((command for name in NAMES if (command := shutil.which(name))), None)


def open_page(path: Path, width: int, height: int, out_png: Path, *flags: str, timeout_s: float = 60) -> str:
    """Open a file at a size in pixels, write a screenshot to `out_png` and return the elements of the page as text.

    The screenshot has any width, but the window is at least 500 px wide while the page loads.
    """
    browser = find_chromium()
    assert browser, "no Chromium here; check find_chromium() first"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [browser, *FLAGS, *flags, f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        command += [f"--screenshot={out_png}", "--dump-dom", path.resolve().as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=timeout_s, check=False)
    assert done.returncode == 0, f"Chromium ended with {done.returncode}: {done.stderr[-2000:]}"
    assert out_png.is_file(), f"Chromium wrote no picture: {done.stderr[-2000:]}"
    return done.stdout
