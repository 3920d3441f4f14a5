"""A reader of the pickle format that cannot execute code.

A pickle is a program for a stack machine. This machine implements only the instructions that plain data needs: it creates no
instances, sets no attributes, imports nothing and consults no registry. The names that a pickle may call are looked up in a
table of this project's own functions; every other name is refused. A restricted `pickle.Unpickler` would be less safe: `BUILD`
sets attributes of any admitted object, hashing nested keys exhausts the C stack, a memo slot with a high number allocates
gigabytes, and calls can return more data than the file contains.
"""

from __future__ import annotations

import codecs
import io
import mmap
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from pickletools import opcodes
from typing import Any, NoReturn

import numpy as np

from trichord.errors import TrichordError, one_line

FLOAT_RUN = re.compile(rb"(?:G.{8}){2,1000}+", re.DOTALL)  # consecutive BINFLOAT instructions
FLOAT_RUN_DTYPE = np.dtype([("instruction", "u1"), ("value", ">f8")])
PLAIN_KEYS = frozenset({str, int, float, bool, bytes, type(None)})
PLAIN_OBJECTS = frozenset(
    {"argparse.Namespace", "types.SimpleNamespace"}
)  # objects whose only state is their attributes
NEWEST_PROTOCOL = 5
GROWTH = 8  # the number of bytes that calls may return per byte of the file
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
    """A Python 2 string that is not ASCII, decoded as UTF-8, or as Latin-1 if it is not UTF-8.

    Attributes:
        raw: The bytes of the string.
    """

    __slots__ = ("raw",)
    raw: bytes

    @classmethod
    def of(cls, raw: bytes) -> str:
        """Return the text of a Python 2 string: a plain `str` if it is ASCII, a `Py2Str` otherwise."""
        if raw.isascii():
            return raw.decode("ascii")
        try:
            text = cls(raw.decode("utf-8"))
        except UnicodeDecodeError:
            text = cls(raw.decode("latin-1"))
        text.raw = raw
        return text


class Named:
    """The replacement for a name in a pickle: a function of this project, a text, or a mere marker if both are None."""

    __slots__ = ("call", "name", "text")

    def __init__(self, name: str, call: Callable[..., object] | None = None, text: str | None = None) -> None:
        self.name, self.call, self.text = name, call, text


def refused(source: str, what: str) -> TrichordError:
    """Return the error to raise for a file that contains `what`, which may be text of the file."""
    what = "".join(c if c.isprintable() else "?" for c in one_line(what))[:200]
    return TrichordError(
        f"{source}: refused: holds {what}, which is not an array, tensor, list, dict, string or number; "
        "no code in it was run; download it from its publisher or save it again as plain data"
    )


def damaged(source: str, why: str) -> TrichordError:
    """Return the error to raise for a damaged file."""
    return TrichordError(f"{source}: is damaged or not a pickle ({one_line(why)[:200]}); download it again")


class Machine:
    """A stack machine that reads pickles of protocols 0 to 5.

    Args:
        data: The content of the file.
        source: The name of the file, for error messages.
        named: The replacement for each name that the file may refer to. Calls receive the machine and the pickled arguments.
        builds: For each type, the function that sets the state of an object of that type. It receives the machine, the object
            and the state.
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
        self.data, self.source = data, source
        self.file: Any = io.BytesIO(data) if isinstance(data, bytes) else data
        self.named, self.builds, self.persistent = named, builds, persistent
        self.budget = GROWTH * len(data) + SPARE_BYTES
        self.at = 0
        self._clear()

    def _clear(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: list[Any] = []
        self.far_memo: dict[int, Any] = {}

    def load(self, begin: int = 0) -> tuple[Any, int]:
        """Read the pickle that begins at `begin`.

        Returns:
            The object and the position after the pickle.

        Raises:
            TrichordError: The pickle refers to a name that is not in the table, or it is damaged.
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

    # ---- used by the functions of the table

    def refuse(self, what: str) -> NoReturn:
        """Raise the error for a file that contains `what`, which may be text of the file."""
        raise refused(self.source, what)

    def damaged(self, why: str) -> NoReturn:
        """Raise the error for a damaged file."""
        raise damaged(self.source, why)

    def spend(self, num_bytes: int) -> None:
        """Charge the result of a call to the budget before it is created. The budget is a few times the size of the file."""
        self.budget -= num_bytes
        if num_bytes < 0 or self.budget < 0:
            self.damaged("it claims more data than it contains")

    def checked_keys(self, keys: Sequence[Any]) -> Sequence[Any]:
        """Return the keys after checking that each is a string, a number or a flat tuple of these."""
        if not PLAIN_KEYS.issuperset(map(type, keys)):
            for key in keys:
                parts = key if type(key) is tuple else (key,)
                if not all(type(part) in PLAIN_KEYS or isinstance(part, np.generic | Py2Str) for part in parts):
                    self.refuse(f"a key or set member of type {type(key).__name__}")
        return keys

    # ---- the loop

    def _run(self) -> Any:
        data, file, stack, memo, steps = self.data, self.file, self.stack, self.memo, STEPS
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
                reader, step = steps.get(code, (None, None))
                if step is None:
                    self.damaged(f"unknown instruction {code:#x} at byte {at - 1}")
                self.at = at
                if reader is None:
                    step(self, None)
                else:
                    file.seek(at)
                    try:
                        argument = reader(file)
                    except ValueError as error:
                        self.damaged(f"near byte {at}, it ends early or has no value: {error}")
                    self.at = file.tell()
                    step(self, argument)
                at = self.at

    # ---- instructions

    def _line(self) -> bytes:
        """Return the rest of the current line."""
        begin, self.at = self.at, self.data.find(b"\n", self.at) + 1
        if not self.at:
            self.damaged("it ends early")
        return self.data[begin : self.at - 1]

    def _name(self) -> str:
        return self._line().decode("utf-8", "replace")

    def _push(self, value: object) -> None:
        self.stack.append(value)

    def _marked(self) -> list[Any]:
        """Pop and return the items above the last mark."""
        begin = self.marks.pop()
        items = self.stack[begin:]
        del self.stack[begin:]
        return items

    def _top(self, kind: type | tuple[type, ...]) -> Any:
        top = self.stack[-1]
        if not isinstance(top, kind):
            self.damaged(f"it adds items to a {type(top).__name__}")
        return top

    def _proto(self, protocol: int) -> None:
        if protocol > NEWEST_PROTOCOL:
            self.damaged(f"protocol {protocol} is not supported")

    def _string(self, _: None) -> None:
        line = self._line().strip()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            self.damaged("a string has no quotes")
        self._push(Py2Str.of(codecs.escape_decode(line[1:-1])[0]))

    def _pop(self, _: None) -> None:
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

    def _append(self, _: None) -> None:
        item = self.stack.pop()
        self._top(list).append(item)

    def _extend(self, _: None) -> None:
        items = self._marked()
        self._top(list).extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._top(dict)
        target.update(zip(self.checked_keys(items[::2]), items[1::2], strict=True))

    def _dict(self, _: None) -> None:
        items = self._marked()
        self.stack.append({})
        self._set_items(items)

    def _add_items(self, _: None) -> None:
        items = self._marked()
        self._top(set).update(self.checked_keys(items))

    def _global(self, module: object, name: object) -> None:
        full = f"{module}.{name}"
        named = self.named.get(full)
        if named is None:
            self.refuse(full)
        self.stack.append(named if named.text is None else named.text)

    def _stack_global(self, _: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self._global(module, name)

    def _reduce(self, _: None) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Named) or type(arguments) is not tuple:
            self.damaged(f"it calls a {type(function).__name__}")
        if function.call is None:
            self.refuse(f"a call of {function.name}")
        self.stack.append(function.call(self, *arguments))

    def _new_object(self, _: None) -> None:
        if not isinstance(self.stack[-2], Named) or self.stack[-2].name not in PLAIN_OBJECTS:
            self._make("an instance of")
        self._reduce(None)

    def _build(self, _: None) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        builder = next((b for kind, b in self.builds.items() if isinstance(target, kind)), None)
        if builder is None:
            self.refuse(f"the state of a {target.name if isinstance(target, Named) else type(target).__name__}")
        builder(self, target, state)

    def _make(self, what: str) -> NoReturn:
        maker = next((item.name for item in reversed(self.stack) if isinstance(item, Named)), "an unknown class")
        self.refuse(f"{what} {maker}")

    def _persistent(self, key: object) -> None:
        if self.persistent is None:
            self.refuse(f"the persistent id {key!r:.80}")
        self.stack.append(self.persistent(key))


_CONSTANTS: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "EMPTY_TUPLE": tuple,
}
_PUSHED = (  # instructions whose argument is the value
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "UNICODE", "BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
)  # fmt: skip
_OWN_LINES = (
    "STRING",
    "GLOBAL",
    "INST",
    "PERSID",
)  # instructions that read their own argument, because it need not be ASCII
_BY_NAME: dict[str, Callable[[Machine, Any], None]] = {
    "PROTO": Machine._proto,
    "FRAME": lambda m, size: None,
    # numbers, strings, bytes and constants
    **dict.fromkeys(_PUSHED, Machine._push),
    **{name: lambda m, _, make=make: m._push(make()) for name, make in _CONSTANTS.items()},  # type: ignore[misc]
    **dict.fromkeys(("BINSTRING", "SHORT_BINSTRING"), lambda m, text: m._push(Py2Str.of(text.encode("latin-1")))),
    "STRING": Machine._string,
    # containers
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "LIST": lambda m, _: m._push(m._marked()),
    "TUPLE": lambda m, _: m._push(tuple(m._marked())),
    "FROZENSET": lambda m, _: m._push(frozenset(m.checked_keys(m._marked()))),
    "DICT": Machine._dict,
    "TUPLE1": lambda m, _: m._tuple(1),
    "TUPLE2": lambda m, _: m._tuple(2),
    "TUPLE3": lambda m, _: m._tuple(3),
    "APPEND": Machine._append,
    "APPENDS": Machine._extend,
    "SETITEM": lambda m, _: m._set_items([m.stack.pop(-2), m.stack.pop()]),
    "SETITEMS": lambda m, _: m._set_items(m._marked()),
    "ADDITEMS": Machine._add_items,
    # stack and memo
    "POP": Machine._pop,
    "POP_MARK": lambda m, _: m._marked().clear(),
    "DUP": lambda m, _: m._push(m.stack[-1]),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Machine._get),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), Machine._put),
    # names and calls
    "GLOBAL": lambda m, _: m._global(m._name(), m._name()),
    "STACK_GLOBAL": Machine._stack_global,
    "REDUCE": Machine._reduce,
    "BUILD": Machine._build,
    "PERSID": lambda m, _: m._persistent(m._name()),
    "BINPERSID": lambda m, _: m._persistent(m.stack.pop()),
    # always refused
    "INST": lambda m, _: m.refuse(f"{m._name()}.{m._name()}"),
    "NEWOBJ": Machine._new_object,
    **dict.fromkeys(("OBJ", "NEWOBJ_EX"), lambda m, _: m._make("an instance of")),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), lambda m, code: m.refuse(f"code {code} of the extension registry")),
    **dict.fromkeys(("NEXT_BUFFER", "READONLY_BUFFER"), lambda m, _: m.refuse("a buffer outside the file")),
}
STEPS: dict[int, tuple[Callable[[Any], Any] | None, Callable[[Machine, Any], None]]] = {
    ord(opcode.code): (
        opcode.arg.reader if opcode.arg and opcode.name not in _OWN_LINES else None,
        _BY_NAME[opcode.name],
    )
    for opcode in opcodes
    if opcode.name in _BY_NAME
}
"""For each code, the reader of the instruction's argument, as the standard library defines it, and the function to execute."""
