"""The source opens files only through `trichord.files`, so that no FIFO or device is opened by accident."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import trichord

SOURCE = Path(trichord.__file__).parent
SAFE = {
    "check_regular",
    "open_regular",
    "open_regular_text",
    "open_given",
    "open_given_text",
    "file_sha256",
    "check_sha256",
}
BY_PATH = {  # functions of libraries that open a path themselves
    "ParquetFile", "read_table", "memory_map", "safe_open", "load_file", "ZipFile", "load", "open_memmap", "memmap", "VideoDecoder",
}  # fmt: skip
ALLOWED: dict[tuple[str, str], str] = {  # (file, function): why it may
    ("cli/bus_error.py", "mapped_file"): "a file of the system",
    ("data/frozen.py", "frozen_rows"): "FrozenRows.open checks its files",
    ("data/frozen_parts.py", "_make_room"): "creates new files in a new folder",
    ("embedder/files.py", "embed_files"): "a function of trichord of that name",
    ("extraction/extract.py", "extract"): "a function of trichord of that name",
    ("extraction/file_rows.py", "get"): "an open temporary file",
    ("media/decode.py", "opened"): "an open file",
    ("media/encode.py", "write_video"): "writes",
    ("media/images.py", "_drawn"): "bytes in memory",
    ("media/images.py", "drawn_within"): "bytes in memory",
    ("media/svg.py", "_raster"): "bytes in memory",
    ("media/torchcodec.py", "pictures"): "after `opened` of the same file",
    ("nn/published.py", "_load_file"): "after `is_file`",
    ("releases/webdataset.py", "members"): "an open file",
    ("report/html.py", "_template"): "a file of the package",
    ("files/arrays.py", "load_npz_array"): "an open file",
    ("store/manifest.py", "_read_rows"): "after `check_regular` in `read_manifest`",
    ("files/pickles.py", "_load_torch_zip"): "an open file",
    ("store/shards.py", "map_shard"): "after `read_header`",
    ("store/spool.py", "_mapped"): "after `holds_only` in `spooled`",
    ("store/store.py", "_open"): "a note of what is read",
    ("store/words.py", "_spellings"): "files of a package",
    ("store/words.py", "default_word_vectors"): "files of a package",
    ("training/checkpoint_folder.py", "read_tensors"): "after `_size`, which refuses what is not regular",
}


@cache
def syntax_tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def functions(path: Path) -> list[tuple[str, ast.AST]]:
    """Return every function of a file with its name."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return [(node.name, node) for node in ast.walk(syntax_tree(path)) if isinstance(node, kinds)]


def called(node: ast.AST) -> Iterator[tuple[ast.Call, str, bool]]:
    """Return calls with the name of the called function, and whether it is a method."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call):
            if isinstance(call.func, ast.Attribute):
                yield call, call.func.attr, True
            elif isinstance(call.func, ast.Name):
                yield call, call.func.id, False


def mode_of(call: ast.Call, position: int) -> str:
    modes = [k.value for k in call.keywords if k.arg == "mode"] or call.args[position : position + 1]
    return modes[0].value if modes and isinstance(modes[0], ast.Constant) and isinstance(modes[0].value, str) else "r"


def offences(path: Path) -> Iterator[str]:
    name = path.relative_to(SOURCE).as_posix()
    for function, node in functions(path):
        calls = list(called(node))
        if (name, function) in ALLOWED or SAFE & {called_name for _, called_name, _ in calls}:
            continue
        for call, what, is_method in calls:
            reads = is_method and what in ("read_text", "read_bytes")
            opens = (
                what == "open"
                and ast.unparse(call.func) != "os.open"
                and mode_of(call, 0 if is_method else 1)[0] == "r"
            )
            by_path = what in BY_PATH and (what != "load" or _loads_a_path(call))
            if reads or opens or by_path:
                yield f"{name}:{call.lineno} {function}: {ast.unparse(call)[:80]}"


def _loads_a_path(call: ast.Call) -> bool:
    module = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    return module in ("np", "torch") and not ast.unparse(call.args[0]).startswith("io.")


def test_files_are_opened_in_one_way() -> None:
    problems = [line for path in sorted(SOURCE.rglob("*.py")) if path.parent.name != "files" for line in offences(path)]
    assert problems == []


def test_files_are_appended_to_in_one_way() -> None:
    """Files are opened by `open_itself`: otherwise, a link would redirect the lines, and a FIFO would block."""
    problems = [
        f"{path.relative_to(SOURCE)}:{call.lineno}"
        for path in sorted(SOURCE.rglob("*.py"))
        for call, what, is_method in called(syntax_tree(path))
        if what == "open"
        and ast.unparse(call.func) != "os.open"
        and mode_of(call, 0 if is_method else 1)[0] in "a"
        and "opener=open_itself" not in ast.unparse(call)
    ]
    assert problems == []


def test_allowed_exceptions_still_exist() -> None:
    names = {
        (path.relative_to(SOURCE).as_posix(), function)
        for path in SOURCE.rglob("*.py")
        for function, _ in functions(path)
    }
    assert set(ALLOWED) <= names
