"""Pickles are read and never executed: known attacks have no effect, and the content of releases is read unchanged."""

from __future__ import annotations

import argparse
import contextlib
import copyreg
import io
import math
import os
import pickle
import struct
import warnings
import zipfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paths import FIXTURES
from trichord.errors import TrichordError
from trichord.files.pickles import load_pickle

SAMPLE = FIXTURES / "release-sample"
PROTOCOLS = range(6)


def read(tmp_path: Path, data: bytes) -> object:
    path = tmp_path / "some.pkl"
    path.write_bytes(data)
    return load_pickle(path)


def refusal(tmp_path: Path, data: bytes) -> str:
    with pytest.raises(TrichordError) as caught:
        read(tmp_path, data)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'some.pkl'}: ") and "\n" not in text
    return text


def same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray | np.generic):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return type(a) is type(b) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and math.isnan(a):
        return isinstance(b, float) and math.isnan(b)
    return type(a) is type(b) and a == b


class Calls:
    """Is pickled as a call of `function`."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


# ---- attacks: each would leave a file named `ran` in the working folder if anything of it were run


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "ran"


TOUCH = "open('ran', 'w').close()"
BY_NAME = {
    "posix.system": ("touch ran",),
    "os.system": ("touch ran",),
    "nt.system": ("touch ran",),
    "subprocess.Popen": (["touch", "ran"],),
    "builtins.eval": (TOUCH,),
    "__builtin__.eval": (TOUCH,),
    "builtins.exec": (TOUCH,),
    "builtins.open": ("ran", "w"),
    "builtins.getattr": ([], "append"),
    "builtins.__import__": ("os",),
    "builtins.type": ("T", (), {}),
    "builtins.object": (),
    "importlib.import_module": ("os",),
    "operator.attrgetter": ("system",),
    "functools.partial": (print,),
    "runpy.run_path": ("evil.py",),
    "pickle.loads": (pickle.dumps(1),),
    "_pickle.loads": (pickle.dumps(1),),
    "numpy.load": ("evil.npy", None, True),
    "numpy.lib.npyio.load": ("evil.npy", None, True),
    "numpy.fromfile": ("ran",),
    "numpy.memmap": ("ran", "uint8", "w+", 0, (1,)),
    "numpy.testing._private.utils.runstring": (TOUCH, {}),
    "numpy.f2py.diagnose.run_command": ("touch ran",),
    "torch.load": ("evil.pt",),
    "torch.hub.load": ("evil/evil", "evil"),
    "torch.jit.unsupported_tensor_ops.execWrapper": (TOUCH, {}, {}),
    "torch._dynamo.guards.GuardBuilder.get": (TOUCH,),
    "torch.serialization._load": (),
    "torch._utils._rebuild_qtensor": (),
    "copyreg._reconstructor": (OrderedDict, object, None),
    "copy_reg._reconstructor": (OrderedDict, object, None),
    "collections.OrderedDict.__init__.__globals__": (),
    "collections.namedtuple": ("T", "a"),
}


def named_call(name: str, arguments: tuple, protocol: int) -> bytes:
    """Return a pickle that calls `name`, created without importing it."""
    module, _, attribute = name.rpartition(".")
    packed = pickle.dumps(arguments, protocol)[:-1] if protocol < 2 else pickle.dumps(arguments, protocol)[2:-1]
    if protocol >= 4:
        strings = b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, attribute))
        return b"\x80\x04" + strings + b"\x93" + packed.removeprefix(b"\x95" + packed[1:9]) + b"R."
    start = b"\x80\x02" if protocol == 2 else b""
    return start + f"c{module}\n{attribute}\n".encode() + packed + b"R."


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", BY_NAME)
def test_names_that_are_not_data_are_refused_by_name(name: str, protocol: int, tmp_path: Path, marker: Path) -> None:
    simple = tuple(a for a in BY_NAME[name] if not callable(a))
    text = refusal(tmp_path, named_call(name, simple, protocol))
    assert f"refused: holds {name}, which is not an array, tensor, list, dict, string or number" in text
    assert "no code in it was run; download it from its publisher" in text
    assert not marker.exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_call_hidden_in_a_release_is_refused(protocol: int, tmp_path: Path, marker: Path) -> None:
    hidden = {"id": "a", "2d": np.zeros(3, np.float32), "x": [1, (2, Calls(os.system, "touch ran"))]}
    assert f"holds {os.system.__module__}.system" in refusal(tmp_path, pickle.dumps([hidden], protocol))
    assert not marker.exists()


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


OPCODES = {
    "INST": (b"(S'touch ran'\nios\nsystem\n.", "holds os.system"),
    "INST of an admitted name": (b"(icollections\nOrderedDict\n.", "holds collections.OrderedDict"),
    "OBJ": (b"(cos\nsystem\nS'touch ran'\no.", "holds os.system"),
    "OBJ of an admitted name": (b"(ccollections\nOrderedDict\no.", "an instance of collections.OrderedDict"),
    "NEWOBJ": (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "an instance of collections.OrderedDict"),
    "NEWOBJ_EX": (b"\x80\x04" + short("builtins") + short("dict") + b"\x93)}\x92.", "an instance of builtins.dict"),
    "BUILD of a list": (b"\x80\x02]}X\x01\x00\x00\x00aK\x01sb.", "the state of a list"),
    "BUILD of a dict": (b"\x80\x02ccollections\nOrderedDict\n)R}b.", "the state of an OrderedDict"),
    "BUILD of a class": (
        b"\x80\x02ccollections\nOrderedDict\n}X\x0c\x00\x00\x00__setstate__cbuiltins\nlist\nsb.",
        "the state of a collections.OrderedDict",
    ),
    "BUILD of a function": (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nN}X\x0c\x00\x00\x00__defaults__K\x01\x85s\x86b.",
        "the state of a numpy.core.multiarray._reconstruct",
    ),
    "EXT1": (b"\x80\x02\x82\xf0(S'touch ran'\ntR.", "code 240 of the extension registry"),
    "EXT2": (b"\x80\x02\x83\xf0\x00)R.", "code 240 of the extension registry"),
    "EXT4": (b"\x80\x02\x84\xf0\x00\x00\x00)R.", "code 240 of the extension registry"),
    "PERSID": (b"Psome id\n.", "the persistent id 'some id'"),
    "BINPERSID": (b"\x80\x02K\x07Q.", "the persistent id 7"),
    "out-of-band buffer": (b"\x80\x05\x97.", "a buffer outside the file"),
    "the name of a type as data": (b"cbuiltins\nlist\n.", "holds builtins.list"),
    "a call of a marker": (b"cnumpy\nndarray\n)R.", "a call of numpy.ndarray"),
    "a name that is not a name": (b"\x80\x04K\x01K\x02\x93.", "holds 1.2"),
    "control characters in a name": (b"c\x1b[31mos\nsys\x07tem\n.", "holds ?[31mos.sys?tem"),
}


@pytest.mark.parametrize("case", OPCODES)
def test_instructions_that_make_or_change_objects_are_refused(case: str, tmp_path: Path, marker: Path) -> None:
    data, what = OPCODES[case]
    copyreg.add_extension("os", "system", 240)
    try:
        assert what in refusal(tmp_path, data)
    finally:
        copyreg.remove_extension("os", "system", 240)
    assert not marker.exists()


@pytest.mark.parametrize("protocol", range(2, 6))
def test_namespaces_and_paths_are_plain_data(protocol: int, tmp_path: Path) -> None:
    value = [argparse.Namespace(lr=0.1, names=["a"]), PurePosixPath("/a/b"), Counter("aab"), defaultdict(int, x=1)]
    expected = [{"lr": 0.1, "names": ["a"]}, "/a/b", {"a": 2, "b": 1}, {"x": 1}]
    assert read(tmp_path, pickle.dumps(value, protocol)) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"cargparse\nNamespace\n(I1\nt\x81.",  # with arguments
        b"cargparse\nNamespace\n)\x81]b.",  # a state that is no dict
        b"cargparse\nNamespace\n)\x81}(I1\nI2\nsb.",  # an attribute without a name
        b"cargparse\nNamespace\n.",  # the class itself
    ],
)
def test_a_namespace_becomes_a_dictionary_of_its_attributes(data: bytes, tmp_path: Path) -> None:
    refusal(tmp_path, data)


def test_objects_in_arrays_are_refused(tmp_path: Path, marker: Path) -> None:
    for protocol in PROTOCOLS:
        data = pickle.dumps(np.array([Calls(os.system, "touch ran"), None], dtype=object), protocol)
        assert "refused: holds" in refusal(tmp_path, data)
        plain = pickle.dumps(np.array(["a", None], dtype=object), protocol)
        assert "numpy type O8" in refusal(tmp_path, plain)
        assert "numpy type V8" in refusal(tmp_path, pickle.dumps(np.zeros(2, "f4,f4"), protocol))
        assert "numpy type M8" in refusal(tmp_path, pickle.dumps(np.zeros(2, "M8[s]"), protocol))
    assert not marker.exists()


@pytest.mark.parametrize("old", [False, True])
def test_files_of_torch_save_are_not_run_either(old: bool, tmp_path: Path, marker: Path) -> None:
    out = io.BytesIO()
    torch.save({"a": torch.ones(2), "x": Calls(os.system, "touch ran")}, out, _use_new_zipfile_serialization=not old)
    assert f"holds {os.system.__module__}.system" in refusal(tmp_path, out.getvalue())
    # the same, as the bytes of a tensor inside a plain pickle
    inner = out.getvalue()
    data = b"\x80\x02ctorch.storage\n_load_from_bytes\nB" + struct.pack("<i", len(inner)) + inner + b"\x85R."
    refusal(tmp_path, data)
    assert not marker.exists()


def test_a_file_in_bytes_in_bytes_is_refused(tmp_path: Path) -> None:
    data = b"N."
    for _ in range(3):
        data = b"\x80\x02ctorch.storage\n_load_from_bytes\nB" + struct.pack("<i", len(data)) + data + b"\x85R."
    refusal(tmp_path, data)


# ---- bombs and damage: one line, at once, in little memory


def array_pickle(shape: bytes, size: int) -> bytes:
    """Return a pickled float32 array that claims `shape` and holds `size` bytes."""
    return (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        + shape
        + b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89B"
        + struct.pack("<i", size)
        + bytes(size)
        + b"tb."
    )


BOMBS = {
    "array larger than the file": (array_pickle(b"J\xff\xff\xff\x7f\x85", 8), "an array of shape (2147483647,)"),
    "array of 2^80 numbers": (array_pickle(b"\x8a\x0b" + bytes(10) + b"\x01\x85", 8), "an array of shape"),
    "array of negative size": (array_pickle(b"J\xff\xff\xff\xff\x85", 8), "an array has no valid shape"),
    "array smaller than its bytes": (array_pickle(b"K\x01\x85", 8), "has 8 bytes"),
    "bytes of 2^60": (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b".", "it ends early"),
    "text of 2^60": (b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b".", "it ends early"),
    "bytearray of 2^60": (b"\x80\x05\x96" + struct.pack("<Q", 1 << 60) + b".", "it ends early"),
    "bytes of negative length": (b"T\xff\xff\xff\xff.", "it ends early"),
    "bytes(2**40)": (b"cbuiltins\nbytes\nI1099511627776\n\x85R.", "bytes created from a int"),
    "list of a string": (b"cbuiltins\nlist\nVabc\n\x85R.", "a container created from a str"),
    "number of 10,000 digits": (b"I" + b"9" * 10_000 + b"\n.", "it ends early or has no value: Exceeds the limit"),
    "nested lists": (b"]" * 100_000 + b"a" * 99_999 + b".", "more than 64 levels deep"),
    "nested tuples as a key": (b"}" + b")" + b"\x85" * 300_000 + b"K\x01s.", "a key or set member of type tuple"),
    "nested sets": (b"\x8f(" + b"\x8f" + b"\x90.", "a key or set member of type set"),
    "growing tuples": (
        b"\x80\x02](" + b"N" * 20_000 + b"eq\x00" + b"cbuiltins\ntuple\nh\x00\x85R0" * 5_000 + b"N.",
        "claims more data than it contains",
    ),
    "growing bytes": (
        b"\x80\x02X"
        + struct.pack("<i", 50_000)
        + b"a" * 50_000
        + b"q\x00"
        + b"c_codecs\nencode\nh\x00\x85R0" * 500
        + b"N.",
        "claims more data than it contains",
    ),
    "cut off": (pickle.dumps([1.5, "some text", np.ones(9)])[:-30], "is damaged or not a pickle"),
    "no STOP": (b"K\x01", "IndexError"),
    "empty stack": (b".", "IndexError"),
    "marks without end": (b"(" * 1000 + b"t" * 1001 + b".", "IndexError"),
    "memo slot that is not there": (b"h\x05.", "KeyError"),
    "odd number of items": (b"}(K\x01u.", "ValueError"),
    "append to a number": (b"K\x01K\x02a.", "it adds items to a int"),
    "a call of a number": (b"K\x01)R.", "it calls a int"),
    "wrong number of arguments": (b"cnumpy\ndtype\n)R.", "TypeError"),
    "protocol of the future": (b"\x80\x09N.", "protocol 9 is not supported"),
    "text": (b"hello, this is no pickle", "is damaged or not a pickle"),
    "zip of something else": (b"", "is empty"),
}


@pytest.mark.parametrize("case", BOMBS)
def test_bombs_and_damage_are_errors_of_one_line(case: str, tmp_path: Path) -> None:
    data, what = BOMBS[case]
    text = refusal(tmp_path, data)
    assert what in text and len(text) < 700


def test_a_memo_slot_of_a_high_number_takes_no_memory(tmp_path: Path) -> None:
    assert read(tmp_path, b"K\x01r\xff\xff\xff\x7f0j\xff\xff\xff\x7f.") == 1


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(TrichordError, match=r"none\.pkl: cannot be read \(No such file or directory\); check the path"):
        load_pickle(tmp_path / "none.pkl")
    with pytest.raises(TrichordError, match="cannot be read"):
        load_pickle(tmp_path)
    np.savez(tmp_path / "a.npz", arr=np.ones(2))
    with pytest.raises(TrichordError, match=r"a\.npz: is a zip file without data\.pkl"):
        load_pickle(tmp_path / "a.npz")
    with pytest.raises(TrichordError, match="is a broken zip file"):
        read(tmp_path, (tmp_path / "a.npz").read_bytes()[:-30])


def torch_zip(tmp_path: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    out, changed = io.BytesIO(), io.BytesIO()
    torch.save({"a": torch.arange(6.0)}, out)
    with zipfile.ZipFile(out) as old, zipfile.ZipFile(changed, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return changed.getvalue()


def test_torch_files_that_claim_more_than_they_hold(tmp_path: Path) -> None:
    cut = torch_zip(tmp_path, lambda name, data: data[:8] if name.endswith("data/0") else data)
    assert "storage 0 of 24 bytes is missing" in refusal(tmp_path, cut)
    bomb = torch_zip(
        tmp_path, lambda name, data: bytes(10**6) if name.endswith("data/0") else data, zipfile.ZIP_DEFLATED
    )
    assert "it claims more data than it contains" in refusal(tmp_path, bomb)
    big = torch_zip(tmp_path, lambda name, data: b"big" if name.endswith("byteorder") else data)
    assert "big-endian machine; save it again" in refusal(tmp_path, big)
    out = io.BytesIO()
    torch.save(torch.zeros(1).expand(1 << 40), out)
    assert "needs more than the 1 numbers of its storage" in refusal(tmp_path, out.getvalue())
    out = io.BytesIO()
    torch.save(torch.arange(4000.0), out, _use_new_zipfile_serialization=False)
    assert "is damaged" in refusal(tmp_path, out.getvalue()[:-8])
    lies = out.getvalue().replace(b"M\xa0\x0f", b"J\xff\xff\xff\x7f", 1).replace(b"M\xa0\x0f", b"J\xff\xff\xff\x7f", 1)
    assert lies != out.getvalue() and "claims more data than it contains" in refusal(tmp_path, lies)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_damaged_releases_give_data_or_an_error_of_one_line(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["caption.pickle", "msrvtt_test.pkl"]))
    content = bytearray((SAMPLE / name).read_bytes()[:5000] + b".")
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = SAMPLE.parent / "parity" / "never written.pkl"
    from trichord.files import pickles
    from trichord.files.unpickle import Machine

    with contextlib.suppress(TrichordError), warnings.catch_warnings():
        warnings.simplefilter("error")
        pickles._check_plain(Machine(bytes(content), str(path), pickles.ADMITTED, pickles.BUILDS).load()[0], str(path))


# ---- what releases hold

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(1 << 200), 1 << 200)
    | st.floats()
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
)
keys = st.text() | st.integers() | st.tuples(st.text(), st.integers())
plain = st.recursive(
    leaves | st.frozensets(keys) | st.sets(keys),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(keys, inner)
        | st.dictionaries(keys, inner).map(OrderedDict)
    ),
    max_leaves=30,
)


@settings(deadline=None)
@given(value=plain, protocol=st.sampled_from(PROTOCOLS))
def test_plain_data_as_python_reads_it(value: object, protocol: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert same(read(tmp_path_factory.getbasetemp(), pickle.dumps(value, protocol)), value)


DTYPES = ["f2", "<f4", ">f4", "f8", "i1", "u1", "<i2", ">i8", "u8", "?", "c8", "S3", "U2", ">U2"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_as_numpy_reads_them(dtype: str, protocol: int, tmp_path: Path) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    views = [values.T, np.asfortranarray(values), values[:, ::2], values[0, 0, :1].reshape(())]
    data = pickle.dumps([[values, values[0, 0, 0], values[:0], *views], values], protocol)
    out = read(tmp_path, data)
    assert isinstance(out, list) and same(out, pickle.loads(data)) and out[1] is out[0][0]
    np.testing.assert_array_equal(out[1], values)


@pytest.mark.parametrize("old", [False, True])
def test_tensors_as_torch_reads_them(old: bool, tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    value = OrderedDict(
        plain=base, view=base[1:3, ::2], turned=base.T, point=torch.tensor(3), empty=torch.zeros(0, 5),
        half=base.half(), brain=base.bfloat16(), integer=base.long(), byte=base.byte(), truth=base > 3,
        double=base.double(), nested=[{"size": base.shape}], text="words", number=1.5,
    )  # fmt: skip
    out = io.BytesIO()
    torch.save(value, out, _use_new_zipfile_serialization=not old)
    read_back = read(tmp_path, out.getvalue())
    assert isinstance(read_back, OrderedDict)
    assert read_back["nested"][0].pop("size") == tuple(base.shape) and value["nested"][0].pop("size")
    assert same(read_back, value)
    for protocol in PROTOCOLS:  # tensors pickled without torch.save, as in the YouCook2 and MSR-VTT releases
        assert same(read(tmp_path, pickle.dumps(value, protocol)), value)


def test_arrays_inside_a_file_of_torch_save(tmp_path: Path) -> None:
    out = io.BytesIO()
    torch.save({"a": np.arange(3.0)}, out)
    assert same(read(tmp_path, out.getvalue()), {"a": np.arange(3.0)})


def test_python_2_pickles(tmp_path: Path) -> None:
    raw = np.array([1.5, -2.25, 3e-9], np.float32).tobytes()
    quoted = "".join(f"\\x{byte:02x}" for byte in raw).encode()
    lines = (
        b"(dp0\nS'2d'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntp4\nS'b'\np5\ntp6\nRp7\n"
        b"(I1\n(L3L\ntp8\ncnumpy\ndtype\np9\n(S'f4'\np10\nI0\nI1\ntp11\nRp12\n(I3\nS'<'\np13\nNNNI-1\nI-1\nI0\ntp14\n"
        b"bI00\nS'" + quoted + b"'\np15\ntp16\nbsS'caption'\np17\nS'caf\\xc3\\xa9 it\\'s'\np18\nsS'ok'\nI01\ns."
    )
    out = read(tmp_path, lines)
    assert isinstance(out, dict) and out["2d"].tobytes() == raw and out["2d"].dtype == np.float32
    assert out["caption"] == "café it's" and out["ok"] is True
    binary = array_pickle(b"K\x03\x85", 12).replace(b"B\x0c\x00\x00\x00" + bytes(12), b"U\x0c" + raw)
    read_back = read(tmp_path, binary)
    assert isinstance(read_back, np.ndarray) and read_back.tobytes() == raw


def test_release_sample_as_python_reads_it() -> None:
    for name in ("caption.pickle", "youcook_val.pkl", "msrvtt_test.pkl"):
        with (SAMPLE / name).open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert same(load_pickle(SAMPLE / name), pickle.load(file))
