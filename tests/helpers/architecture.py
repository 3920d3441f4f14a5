"""Count the structure of the code: lines, floors of rooms, circles of rooms and files.

`python tests/helpers/architecture.py` prints the figures.

A room is a top-level package or module of `trichord`. All imports count, also those inside functions and under
`TYPE_CHECKING`; `__init__` and `__main__` of a package are left out, for they only pass names on.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import grimp

from paths import ROOT

SOURCE = ROOT / "src" / "trichord"
PASSED_ON = ("__init__", "__main__")
_NO_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)

Graph = Mapping[str, set[str]]


@dataclass(frozen=True)
class Structure:
    """Figures of the structure of the code.

    Attributes:
        num_lines: Lines of code, without blank lines, comments and docstrings.
        longest_file: The file with the most lines of any kind, and their number.
        floors: Rooms on the longest chain of imports, from the top down; a circle of rooms counts as one.
        room_circles: Rooms that import each other, directly or through others.
        file_circles: Files that import each other, directly or through others.
    """

    num_lines: int
    longest_file: tuple[str, int]
    floors: tuple[str, ...]
    room_circles: tuple[tuple[str, ...], ...]
    file_circles: tuple[tuple[str, ...], ...]


@cache
def structure() -> Structure:
    """Return the figures of the source on disk."""
    files = sorted(SOURCE.rglob("*.py"))
    lengths = {str(path.relative_to(SOURCE)): len(path.read_text().splitlines()) for path in files}
    imports = file_imports()
    rooms: dict[str, set[str]] = {room_of(name): set() for name in imports}
    for name, imported in imports.items():
        rooms[room_of(name)] |= {room_of(other) for other in imported} - {room_of(name)}
    return Structure(
        num_lines=sum(code_lines(path.read_text()) for path in files),
        longest_file=max(lengths.items(), key=lambda item: item[1]),
        floors=longest_chain(rooms),
        room_circles=circles(rooms),
        file_circles=circles(imports),
    )


def file_imports() -> dict[str, set[str]]:
    """Return the modules that each module imports, without `trichord` itself and the files in PASSED_ON."""
    graph = grimp.build_graph("trichord", exclude_type_checking_imports=False, cache_dir=None)
    packages = {module for module in graph.modules if (SOURCE.parent / module.replace(".", "/")).is_dir()}
    kept = {module for module in graph.modules - packages if module.rpartition(".")[2] not in PASSED_ON}
    return {module: graph.find_modules_directly_imported_by(module) & kept for module in sorted(kept)}


def room_of(module: str) -> str:
    """Return the room of a module: `store` for `trichord.store.parts`."""
    return module.split(".")[1]


def code_lines(source: str) -> int:
    """Return the number of lines of code, without blank lines, comments and docstrings."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            docstrings |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def components(graph: Graph) -> list[tuple[str, ...]]:
    """Return the strongly connected components (Tarjan's algorithm), each after the components that it reaches."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    done: list[tuple[str, ...]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            at = stack.index(node)
            done.append(tuple(sorted(stack[at:])))
            del stack[at:]

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return done


def circles(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """Return the groups of nodes that reach each other."""
    return tuple(sorted(group for group in components(graph) if len(group) > 1))


def longest_chain(graph: Graph) -> tuple[str, ...]:
    """Return the longest chain of imports from the top down; a circle is one link, named by its members."""
    groups = components(graph)
    group_of = {node: group for group in groups for node in group}
    chains: dict[tuple[str, ...], tuple[str, ...]] = {}
    for group in groups:
        below = {group_of[other] for node in group for other in graph[node]} - {group}
        longest = max((chains[other] for other in below), key=len, default=())
        chains[group] = ("+".join(group), *longest)
    return max(chains.values(), key=len, default=())


def shown(names: Iterable[Iterable[str]]) -> str:
    return "; ".join(" ".join(group) for group in names) or "none"


def main() -> None:
    figures = structure()
    print(f"lines of code: {figures.num_lines:,}")
    print("longest file: {} ({} lines)".format(*figures.longest_file))
    print(f"floors: {len(figures.floors)}: {' > '.join(figures.floors)}")
    print(f"circles of rooms: {len(figures.room_circles)}: {shown(figures.room_circles)}")
    print(f"circles of files: {len(figures.file_circles)}: {shown(figures.file_circles)}")


if __name__ == "__main__":
    main()
