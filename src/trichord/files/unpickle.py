"""A reader of the pickle format that cannot run anything.

A pickle is a program for a stack machine. This machine has the instructions that plain data needs and no others: no
instance is made, no attribute is set, nothing is imported, no registry is asked. What a pickle may call is a table of
this project's own functions, found by the name that stands in the file; every other name is refused. A restricted
`pickle.Unpickler` would leave more open: `BUILD` sets attributes of whatever was admitted, the hash of nested keys
exhausts the C stack, a memo slot of a high number claims gigabytes, calls can return more than the file holds.
"""

from __future__ import annotations

import codecs
import mmap
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from trichord.errors import TrichordError, one_line

FLOAT_RUN = re.compile(rb"(?:G.{8}){2,1000}+", re.DOTALL)  # instructions BINFLOAT in a row
FLOAT_RUN_DTYPE = np.dtype([("instruction", "u1"), ("value", ">f8")])
PLAIN_KEYS = frozenset({str, int, float, bool, bytes, type(None)})
PLAIN_OBJECTS = frozenset({"argparse.Namespace", "types.SimpleNamespace"})  # which have attributes and nothing else
NEWEST_PROTOCOL = 5
GROWTH = 8  # bytes that calls may return per byte of the file
SPARE_BYTES = 1 << 16
UNREADABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


class Py2Str(str):
    """A Python 2 string that is not ASCII: its UTF-8 text (Latin-1 where it is not UTF-8), and its bytes."""

    __slots__ = ("raw",)
    raw: bytes

    @classmethod
    def of(cls, raw: bytes) -> str:
        if raw.isascii():
            return raw.decode("ascii")
        try:
            text = cls(raw.decode("utf-8"))
        except UnicodeDecodeError:
            text = cls(raw.decode("latin-1"))
        text.raw = raw
        return text


class Named:
    """What a name in a pickle stands for: a function of this project, a text, or (without both) a mere marker."""

    __slots__ = ("call", "name", "text")

    def __init__(self, name: str, call: Callable[..., object] | None = None, text: str | None = None) -> None:
        self.name, self.call, self.text = name, call, text


def refused(source: str, what: str) -> TrichordError:
    """The error for a file that holds `what`, which may be text of the file."""
    what = "".join(c if c.isprintable() else "?" for c in one_line(what))[:200]
    return TrichordError(
        f"{source}: refused: holds {what}, which is not an array, tensor, list, dict, string or number; "
        "nothing of it was run; take the file from its publisher or save it again as plain data"
    )


def damaged(source: str, why: str) -> TrichordError:
    return TrichordError(f"{source}: is damaged or not a pickle ({one_line(why)[:200]}); download it again")


class Machine:
    """Reads pickles of protocols 0 to 5 from `data`.

    Args:
        data: The whole file.
        source: Name of the file for messages.
        named: What names in the file stand for; a call gets the machine and the pickled arguments.
        builds: Per type, what sets the state of an object of exactly this type: gets the machine, object and state.
        persistent: Resolves persistent ids; None refuses them.
    """

    def __init__(
        self,
        data: bytes | mmap.mmap,
        source: str,
        named: Mapping[str, Named],
        builds: Mapping[type, Callable[[Machine, Any, Any], None]],
        persistent: Callable[[object], object] | None = None,
    ) -> None:
        self.data, self.size, self.source = data, len(data), source
        self.named, self.builds, self.persistent = named, builds, persistent
        self.budget = GROWTH * self.size + SPARE_BYTES
        self.at = 0
        self._clear()

    def _clear(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: list[Any] = []
        self.far_memo: dict[int, Any] = {}

    def load(self, begin: int = 0) -> tuple[Any, int]:
        """The object that is pickled at `begin`, and the position behind it.

        Raises TrichordError when the pickle names what is not in the table, or is damaged.
        """
        self._clear()
        self.at = begin
        try:
            value = self._run()
        except TrichordError:
            raise
        except UNREADABLE as error:
            raise damaged(self.source, f"near byte {self.at}, {type(error).__name__}") from None
        self._clear()
        return value, self.at

    # ---- for the functions of the table

    def refuse(self, what: str) -> NoReturn:
        """Refuse the file because of `what`, which may be text of the file."""
        raise refused(self.source, what)

    def damaged(self, why: str) -> NoReturn:
        raise damaged(self.source, why)

    def spend(self, num_bytes: int) -> None:
        """Account for what a call returns, before it is made: all together stays within a few times the file."""
        self.budget -= num_bytes
        if num_bytes < 0 or self.budget < 0:
            self.damaged("it claims more data than it holds")

    def checked_keys(self, keys: Sequence[Any]) -> Sequence[Any]:
        """`keys`, if each is a string, number or flat tuple of these."""
        if not PLAIN_KEYS.issuperset(map(type, keys)):
            for key in keys:
                parts = key if type(key) is tuple else (key,)
                if not all(type(part) in PLAIN_KEYS or isinstance(part, np.generic | Py2Str) for part in parts):
                    self.refuse(f"a key or set member of type {type(key).__name__}")
        return keys

    # ---- the loop

    def _run(self) -> Any:
        data, stack, memo, steps = self.data, self.stack, self.memo, STEPS
        at = self.at
        while True:
            code = data[at]
            at += 1
            if code == 0x94:  # MEMOIZE
                memo.append(stack[-1])
            elif code == 0x8C:  # SHORT_BINUNICODE
                end = at + 1 + data[at]
                stack.append(str(data[at + 1 : end], "utf-8", "surrogatepass"))
                at = end
            elif code == 0x47:  # BINFLOAT
                run = FLOAT_RUN.match(data, at - 1)
                if run:
                    stack.extend(np.frombuffer(run.group(), FLOAT_RUN_DTYPE)["value"].tolist())
                    at = run.end()
                else:
                    stack.append(struct.unpack(">d", data[at : at + 8])[0])
                    at += 8
            elif code == 0x2E:  # STOP
                self.at = at
                return stack.pop()
            else:
                self.at = at
                step = steps.get(code)
                if step is None:
                    self.damaged(f"unknown instruction {code:#x} at byte {at - 1}")
                step(self)
                at = self.at

    # ---- arguments of instructions

    def _take(self, count: int) -> bytes:
        begin, self.at = self.at, self.at + count
        if count < 0 or self.at > self.size:
            self.damaged("it ends early")
        return self.data[begin : self.at]

    def _number(self, width: int, signed: bool = False) -> int:
        return int.from_bytes(self._take(width), "little", signed=signed)

    def _line(self) -> bytes:
        end = self.data.find(b"\n", self.at)
        if end < 0:
            self.damaged("it ends early")
        line = self._take(end - self.at)
        self.at += 1
        return line

    def _marked(self) -> list[Any]:
        """Pop what lies above the last mark."""
        begin = self.marks.pop()
        items = self.stack[begin:]
        del self.stack[begin:]
        return items

    def _top(self, kind: type | tuple[type, ...]) -> Any:
        top = self.stack[-1]
        if not isinstance(top, kind):
            self.damaged(f"it fills a {type(top).__name__}")
        return top

    # ---- instructions

    def _proto(self) -> None:
        if (protocol := self._number(1)) > NEWEST_PROTOCOL:
            self.damaged(f"protocol {protocol} is unknown")

    def _frame(self) -> None:
        self._take(8)

    def _int_line(self) -> None:
        line = self._line()
        self.stack.append(line == b"01" if line in (b"00", b"01") else int(line))

    def _pop(self) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def _get(self, slot: int) -> None:
        self.stack.append(self.memo[slot] if 0 <= slot < len(self.memo) else self.far_memo[slot])

    def _put(self, slot: int) -> None:
        if slot == len(self.memo):
            self.memo.append(self.stack[-1])
        elif 0 <= slot < len(self.memo):
            self.memo[slot] = self.stack[-1]
        else:
            self.far_memo[slot] = self.stack[-1]

    def _tuple(self, count: int) -> None:
        items = tuple(self.stack[len(self.stack) - count :])
        if len(items) != count:
            self.damaged("its stack is empty")
        del self.stack[len(self.stack) - count :]
        self.stack.append(items)

    def _append(self) -> None:
        item = self.stack.pop()
        self._top(list).append(item)

    def _extend(self) -> None:
        items = self._marked()
        self._top(list).extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._top(dict)
        target.update(zip(self.checked_keys(items[::2]), items[1::2], strict=True))

    def _dict(self) -> None:
        items = self._marked()
        self.stack.append({})
        self._set_items(items)

    def _add_items(self) -> None:
        items = self._marked()
        self._top(set).update(self.checked_keys(items))

    def _global(self, module: object, name: object) -> None:
        full = f"{module}.{name}"
        found = self.named.get(full)
        if found is None:
            self.refuse(full)
        self.stack.append(found if found.text is None else found.text)

    def _stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self._global(module, name)

    def _reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Named) or type(arguments) is not tuple:
            self.damaged(f"it calls a {type(function).__name__}")
        if function.call is None:
            self.refuse(f"a call of {function.name}")
        self.stack.append(function.call(self, *arguments))

    def _new_object(self) -> None:
        if not isinstance(self.stack[-2], Named) or self.stack[-2].name not in PLAIN_OBJECTS:
            self._make("an instance of")
        self._reduce()

    def _build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        builder = next((b for kind, b in self.builds.items() if isinstance(target, kind)), None)
        if builder is None:
            self.refuse(f"the state of a {target.name if isinstance(target, Named) else type(target).__name__}")
        builder(self, target, state)

    def _make(self, what: str) -> NoReturn:
        maker = next((item.name for item in reversed(self.stack) if isinstance(item, Named)), "an unknown class")
        self.refuse(f"{what} {maker}")

    def _inst(self) -> None:
        module, name = (self._line().decode("utf-8", "replace") for _ in range(2))
        self.refuse(f"{module}.{name}")

    def _persistent(self, key: object) -> None:
        if self.persistent is None:
            self.refuse(f"the persistent id {key!r:.80}")
        self.stack.append(self.persistent(key))


def _push(make: Callable[[Machine], object]) -> Callable[[Machine], None]:
    return lambda m: m.stack.append(make(m))


def _text(width: int) -> Callable[[Machine], None]:
    return _push(lambda m: str(m._take(m._number(width)), "utf-8", "surrogatepass"))


def _bytes(width: int) -> Callable[[Machine], None]:
    return _push(lambda m: m._take(m._number(width)))


def _py2_text(width: int) -> Callable[[Machine], None]:
    return _push(lambda m: Py2Str.of(m._take(m._number(width, signed=width == 4))))


def _py2_quoted(machine: Machine) -> str:
    line = machine._line().strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        machine.damaged("a string has no quotes")
    return Py2Str.of(codecs.escape_decode(line[1:-1])[0])


def _extension(width: int) -> Callable[[Machine], None]:
    return lambda m: m.refuse(f"code {m._number(width)} of the extension registry")


STEPS: dict[int, Callable[[Machine], None]] = {
    0x80: Machine._proto,
    0x95: Machine._frame,
    # numbers and constants
    0x4E: _push(lambda m: None),
    0x88: _push(lambda m: True),
    0x89: _push(lambda m: False),
    0x49: Machine._int_line,
    0x4A: _push(lambda m: m._number(4, signed=True)),
    0x4B: _push(lambda m: m._number(1)),
    0x4D: _push(lambda m: m._number(2)),
    0x4C: _push(lambda m: int(m._line().rstrip(b"L"))),
    0x8A: _push(lambda m: m._number(m._number(1), signed=True)),
    0x8B: _push(lambda m: m._number(m._number(4, signed=True), signed=True)),
    0x46: _push(lambda m: float(m._line())),
    # strings and bytes
    0x56: _push(lambda m: str(m._line(), "raw-unicode-escape")),
    0x58: _text(4),
    0x8D: _text(8),
    0x53: _push(_py2_quoted),
    0x54: _py2_text(4),
    0x55: _py2_text(1),
    0x42: _bytes(4),
    0x43: _bytes(1),
    0x8E: _bytes(8),
    0x96: _push(lambda m: bytearray(m._take(m._number(8)))),
    # containers
    0x5D: _push(lambda m: []),
    0x7D: _push(lambda m: {}),
    0x8F: _push(lambda m: set()),
    0x29: _push(lambda m: ()),
    0x28: lambda m: m.marks.append(len(m.stack)),
    0x6C: _push(Machine._marked),
    0x74: _push(lambda m: tuple(m._marked())),
    0x91: _push(lambda m: frozenset(m.checked_keys(m._marked()))),
    0x64: Machine._dict,
    0x85: lambda m: m._tuple(1),
    0x86: lambda m: m._tuple(2),
    0x87: lambda m: m._tuple(3),
    0x61: Machine._append,
    0x65: Machine._extend,
    0x73: lambda m: m._set_items([m.stack.pop(-2), m.stack.pop()]),
    0x75: lambda m: m._set_items(m._marked()),
    0x90: Machine._add_items,
    # stack and memo
    0x30: Machine._pop,
    0x31: lambda m: m._marked().clear(),
    0x32: _push(lambda m: m.stack[-1]),
    0x67: lambda m: m._get(int(m._line())),
    0x68: lambda m: m._get(m._number(1)),
    0x6A: lambda m: m._get(m._number(4)),
    0x70: lambda m: m._put(int(m._line())),
    0x71: lambda m: m._put(m._number(1)),
    0x72: lambda m: m._put(m._number(4)),
    # names and calls
    0x63: lambda m: m._global(m._line().decode("utf-8", "replace"), m._line().decode("utf-8", "replace")),
    0x93: Machine._stack_global,
    0x52: Machine._reduce,
    0x62: Machine._build,
    0x50: lambda m: m._persistent(m._line().decode("utf-8", "replace")),
    0x51: lambda m: m._persistent(m.stack.pop()),
    # refused whatever they name
    0x69: Machine._inst,
    0x6F: lambda m: m._make("an instance of"),
    0x81: Machine._new_object,
    0x92: lambda m: m._make("an instance of"),
    0x82: _extension(1),
    0x83: _extension(2),
    0x84: _extension(4),
    0x97: lambda m: m.refuse("a buffer outside the file"),
    0x98: lambda m: m.refuse("a buffer outside the file"),
}
