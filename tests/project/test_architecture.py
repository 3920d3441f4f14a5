"""The structure of the code does not get worse: the figures of tests/helpers/architecture.py, and its counts on small graphs."""

from __future__ import annotations

from architecture import circles, code_lines, longest_chain, structure

GRAPH = {"a": {"b", "c"}, "b": {"c"}, "c": {"d"}, "d": {"c"}, "e": set()}


def test_files_and_rooms_are_in_order() -> None:
    problems = structure()
    assert problems.file_circles == ()
    assert problems.longest_file[1] <= 500
    assert len(problems.floors) <= 10 and not problems.room_circles


def test_chains_and_circles() -> None:
    assert circles(GRAPH) == (("c", "d"),)
    assert longest_chain(GRAPH) == ("a", "b", "c+d")
    assert circles({}) == () and longest_chain({}) == () and longest_chain({"a": set()}) == ("a",)


def test_lines_of_code() -> None:
    source = (
        '"""Module."""\n\nimport os  # a comment\n\n\ndef f() -> str:\n    """Docs\n    of two lines."""\n'
        '    # why\n    return """a\n\nb"""\n'
    )
    assert code_lines(source) == 5, "import, def, and the three lines of the text that is returned"
    assert code_lines("") == 0 and code_lines("'a'\n'b'\n") == 1
