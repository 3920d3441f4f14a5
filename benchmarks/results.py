"""Record the results of benchmarks in benchmarks/RESULTS.md: one section per benchmark, which the next run replaces."""

from __future__ import annotations

import os
import platform
import re
from datetime import date
from pathlib import Path

PATH = Path(__file__).with_name("RESULTS.md")
HEAD = (
    "# Results\n\nEach section is written by the script that it names. Figures hold for the given machine and date.\n"
)


def machine() -> str:
    """Return the number of cores, the architecture, the Python version and, if it is known, the name of the processor."""
    model = ""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        model = f" ({found[1].strip()})" if found else ""
    except OSError:
        pass
    return f"{os.cpu_count()} cores{model}, {platform.machine()}, Python {platform.python_version()}"


def record(script: str, title: str, rows: list[tuple[str, str, str]], remarks: str = "") -> None:
    """Write and print a section.

    Args:
        script: Command line of the script, below benchmarks/.
        title: Heading of the section, which identifies it.
        rows: (quantity, measured value, target) of each row.
        remarks: Text below the table.
    """
    lines = [f"## {title}", "", f"`python benchmarks/{script}`, {date.today()}, {machine()}", ""]
    lines += ["| quantity | measured | target |", "| --- | --- | --- |", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]
    if remarks:
        lines += ["", remarks]
    section = "\n".join(lines) + "\n"
    print(section)
    text = PATH.read_text("utf-8") if PATH.exists() else HEAD
    parts = re.split(r"(?m)^(?=## )", text)
    kept = [part.rstrip() + "\n" for part in parts if not part.startswith(f"## {title}\n")]
    PATH.write_text("\n".join([*kept, section]), "utf-8")
