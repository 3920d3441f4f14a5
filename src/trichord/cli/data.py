"""Commands that create, inspect and export stores."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from trichord.cli.parsing import call, joined, parse, parser_of, show
from trichord.errors import TrichordError

POSTPONED = 75  # EX_TEMPFAIL of sysexits.h: a temporary failure


def world(words: list[str]) -> int:
    """Run `trichord world`."""
    from trichord.world import write_world

    example = "trichord world my_world --num_train 60 --num_test 40"
    show(call(write_world, "world", words, positional=("out",), example=example))
    return 0


def extract(words: list[str]) -> int:
    """Run `trichord extract`."""
    from trichord.extraction.extract import extract

    if words in (["--list-encoders"], ["--list_encoders"]):
        from trichord.extraction.choice import list_encoders

        print("\n".join(list_encoders()))
        return 0
    example = "trichord extract my_videos --store my_store --dry-run"
    summary = call(extract, "extract", joined("--modality", words), positional=("videos",), example=example)
    show(summary)
    return exit_code_of(summary)


def import_(words: list[str]) -> int:
    """Run `trichord import`."""
    from trichord.extraction.stamps import import_stamps
    from trichord.releases import IMPORTERS

    importers: dict[str, Callable[..., Any]] = {**IMPORTERS, "stamps": import_stamps}
    if not words or words[0] in ("-h", "--help"):
        print(
            f"usage: trichord import {{{','.join(importers)}}} --root DIR --store STORE\n"
            "`trichord import NAME --help` explains an importer"
        )
        return 0
    if words[0] not in importers:
        raise TrichordError(f"unknown importer '{words[0]}'; expected one of {', '.join(importers)}")
    options = {
        "stamps": "--root stamps --language es",
        "webdataset": "--root shards",
        "npy": "--root arrays",
        "world-steps": "--root my_world",
    }.get(words[0], "--root release --words GoogleNews-vectors-negative300.bin")
    example = f"trichord import {words[0]} {options} --store my_store"
    summary = call(importers[words[0]], f"import {words[0]}", words[1:], positional=(), example=example)
    show(summary)
    return exit_code_of(summary)


def exit_code_of(summary: object) -> int:
    """Return the exit code: 128 + N after signal N, POSTPONED if items failed because of the system, otherwise 0."""
    if (interruption := getattr(summary, "interruption", None)) is not None:
        return 128 + getattr(interruption, "number", signal.SIGINT)
    return POSTPONED if getattr(summary, "num_postponed", 0) else 0


def store(words: list[str]) -> int:
    """Run `trichord store`."""
    from trichord.store.inspect import store_info, verify

    if words[:1] == ["export"]:
        from trichord.releases.export import export_store

        example = "trichord store export my_store --out release --layout howto100m"
        show(call(export_store, "store export", words[1:], positional=("store",), example=example))
        return 0
    if not words or words[0] not in ("info", "verify"):
        if words and words[0] not in ("-h", "--help"):
            raise TrichordError(
                "unknown command of `trichord store`; use `trichord store info STORE`, `trichord store verify STORE` or `trichord "
                "store export STORE`"
            )
        print(
            "usage: trichord store {info,verify} STORE\n       trichord store export STORE --out DIR --layout LAYOUT\n"
            "`trichord store COMMAND --help` explains a command"
        )
        return 0
    path = _store_path(*words)
    if words[0] == "info":
        show(store_info(path))
        return 0
    problems = verify(path)
    for problem in problems:
        show(problem)
    if problems:
        raise TrichordError(f"{path}: the store has {len(problems)} problem(s), listed above; repair or replace it")
    print(f"{path}: no problems found")
    return 0


def _store_path(command: str, *words: str) -> str:
    """Return the store in the words that follow `trichord store info` or `trichord store verify`."""
    description = {
        "info": "Print what a store contains.",
        "verify": "Read a store completely and print each problem in one line.",
    }[command]
    parser = parser_of(f"store {command}", description, f"trichord store {command} my_store")
    parser.add_argument("store", type=str, help="Folder or URL of the store.")
    return str(parse(parser, list(words)).store)
