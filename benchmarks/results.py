"""Where figures go: benchmarks/RESULTS.md, a section per benchmark, each replaced when its script runs again."""

from __future__ import annotations

import os
import platform
import re
from datetime import date
from pathlib import Path

PATH = Path(__file__).with_name("RESULTS.md")
HEAD = "# Results\n\nEach section is written by the script that it names; figures hold for the machine and day beside them.\n"


def machine() -> str:
    """`2 cores, x86_64, Python 3.11.7`, and the processor where the system tells it."""
    model = ""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        model = f" ({found[1].strip()})" if found else ""
    except OSError:
        pass
    return f"{os.cpu_count()} cores{model}, {platform.machine()}, Python {platform.python_version()}"


def record(script: str, title: str, rows: list[tuple[str, str, str]], remarks: str = "") -> None:
    """Write a section: rows of (what, figure, asked for). Also prints it."""
    lines = [f"## {title}", "", f"`python benchmarks/{script}`, {date.today()}, {machine()}", ""]
    lines += ["| what | measured | asked |", "| --- | --- | --- |", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]
    if remarks:
        lines += ["", remarks]
    section = "\n".join(lines) + "\n"
    print(section)
    text = PATH.read_text("utf-8") if PATH.exists() else HEAD
    parts = re.split(r"(?m)^(?=## )", text)
    kept = [part.rstrip() + "\n" for part in parts if not part.startswith(f"## {title}\n")]
    PATH.write_text("\n".join([*kept, section]), "utf-8")
