"""Checks of the folder of a pretrained model before a library loads it: it must not name code, other models or other files.

The libraries that read these folders do what the configurations say: they import modules, join paths, open other folders, and
download from the hub. Their versions differ in what they refuse; these checks do not depend on the version. Sizes in the
configurations are checked in `network_size`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trichord.errors import TrichordError, one_line
from trichord.files.folders import is_real_folder
from trichord.files.reading import read_json_value

MOST_BYTES = 64 << 20  # the size limit of a configuration or a weights index
MOST_ENTRIES = 20_000
DEEPEST = 4  # levels of folders in a model's folder
Keyed = tuple[str, Any]

_MODULES = (
    "BoW|CLIPModel|CNN|Dense|Dropout|LSTM|LayerNorm|Normalize|Pooling|Router|StaticEmbedding|Transformer"
    "|WeightedLayerPooling|WordEmbeddings|WordWeights"
)
_SENTENCE_MODULE = re.compile(
    rf"sentence_transformers(?:\.[A-Za-z_]+)*\.(?:models|modules)(?:\.[A-Za-z_]+)?\.(?:{_MODULES})"
)
_SENTENCE_TOKENIZER = re.compile(
    r"sentence_transformers(?:\.[A-Za-z_]+)*\.(?:models|modules)(?:\.[A-Za-z_]+)*\.[A-Za-z]+Tokenizer"
)
_ACTIVATION = re.compile(r"torch\.nn\.(?:modules\.(?:activation|linear)\.)?[A-Z][A-Za-z0-9]*")
_METHOD = re.compile(r"forward|get_[a-z]+_features")
_LOADING = ("model_args", "model_kwargs", "config_args", "config_kwargs", "tokenizer_args", "processor_kwargs")
_LOADING_KEYS = (
    "add_eos_token", "add_pooling_layer", "attn_implementation", "do_lower_case", "dtype", "max_length", "model_max_length",
    "padding_side", "torch_dtype", "trust_remote_code", "use_fast",
)  # fmt: skip
_OTHER_MODELS = (
    "base_model_name_or_path", "model_name_or_path", "tokenizer_name_or_path", "config_name_or_path", "peft_config",
    "configuration_files", "cache_dir", "gguf_file",
)  # fmt: skip
_NOTES = ("_name_or_path", "name_or_path", "special_tokens_map_file")  # the origin of a model, which no library reads


def check_model_folder(folder: Path) -> None:
    """Check every configuration in the folder of a model, at any depth.

    Raises:
        TrichordError: A configuration names code, another model or a file elsewhere, or a folder in it is a link.
    """
    for path in _files_below(folder):
        name = path.name
        if name == "adapter_config.json":
            raise _refused(path, "the folder contains an adapter for another model; merge the adapter into that model")
        if name.endswith(".index.json"):
            _check_index(path, read_json(path))
        elif name == "modules.json":
            _check_modules(path, read_json(path))
        elif name.endswith(".json") and "config" in name:
            content = read_json(path)
            if isinstance(content, dict):
                _check_sentence_config(path, content)
            for key, value in keyed_values(content):
                _check_value(path, key, value)


def keyed_values(content: Any) -> Iterator[Keyed]:
    """Yield each value in a JSON value at any depth, with its key; items of a list have the key of the list."""
    todo: list[Keyed] = [("", content)]
    while todo:
        key, value = todo.pop()
        yield key, value
        if isinstance(value, dict):
            todo.extend(value.items())
        elif isinstance(value, list):
            todo.extend((key, item) for item in value)


def _files_below(folder: Path, depth: int = 0) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        children = sorted(entries, key=lambda entry: entry.name)
    if len(children) > MOST_ENTRIES:
        raise _refused(folder, f"it contains {len(children):,} files, more than any model has")
    for entry in children:
        if entry.is_dir():
            if entry.is_symlink():
                raise _refused(
                    Path(entry.path), "it is a link to a folder; replace the link with the files of the model"
                )
            if depth == DEEPEST:
                raise _refused(Path(entry.path), f"it is more than {DEEPEST} levels below the folder of the model")
            if entry.name != ".git":
                yield from _files_below(Path(entry.path), depth + 1)
        else:
            yield Path(entry.path)


def read_json(path: Path) -> Any:
    """Read a JSON file of a model.

    Raises:
        TrichordError: The file is damaged or too large.
    """
    try:
        return read_json_value(path, max_bytes=MOST_BYTES)
    except (OSError, ValueError) as error:
        raise TrichordError(f"{path}: is not readable JSON ({one_line(error)[:100]}); replace the file") from None


def _check_index(path: Path, content: Any) -> None:
    """Check that the weight files in an index are in the same folder."""
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    for name in set(map(str, weight_map.values())) if isinstance(weight_map, dict) else ():
        if not _is_plain(name):
            raise _refused(path, f"it lists weights in '{_shown(name)}', a file elsewhere")


def _check_modules(path: Path, content: Any) -> None:
    """Check that the modules of a sentence-transformers model belong to the library and are in folders next to the list."""
    for module in content if isinstance(content, list) else [content]:
        if not isinstance(module, dict):
            raise _refused(path, f"it names '{_shown(module)}', which is not code of sentence_transformers")
        _check_module_type(path, module.get("type"))
        _check_module_folder(path, module.get("path", ""))


def _check_sentence_config(path: Path, content: dict[str, Any]) -> None:
    """Check `types` and `structure` of a router, which name its modules and their folders."""
    types = content.get("types")
    if isinstance(types, dict):
        for name, kind in types.items():
            _check_module_type(path, kind)
            _check_module_folder(path, name)
    structure = content.get("structure")
    for names in structure.values() if isinstance(structure, dict) else ():
        for name in names if isinstance(names, list) else [names]:
            _check_module_folder(path, name)


def _check_module_type(path: Path, name: Any) -> None:
    if not isinstance(name, str) or not _SENTENCE_MODULE.fullmatch(name):
        raise _refused(path, f"it names '{_shown(name)}', which is not a module of sentence_transformers")


def _check_module_folder(path: Path, name: Any) -> None:
    if name == "":
        return
    if not isinstance(name, str) or not _is_plain(name):
        raise _refused(path, f"it names the folder '{_shown(name)}', which is not next to it")
    folder = path.parent / name
    if os.path.lexists(folder) and not is_real_folder(folder):
        raise _refused(path, f"it names the folder '{_shown(name)}', which is a link or a file")


def _check_value(path: Path, key: str, value: Any) -> None:
    if key == "auto_map" or (key == "trust_remote_code" and value):
        raise _refused(path, f"it has '{key}', which names code to run")
    if key == "use_pretrained_backbone" and value:
        raise _refused(path, f"it has '{key}', which loads another model")
    if key in _OTHER_MODELS and value:
        raise _refused(path, f"it has '{key}', which names another model or file")
    if key in _LOADING and isinstance(value, dict) and (unknown := sorted(set(value) - set(_LOADING_KEYS))):
        raise _refused(path, f"its '{key}' contain '{_shown(unknown[0])}', which could load another model or file")
    if isinstance(value, str):
        _check_text(path, key, value)


def _check_text(path: Path, key: str, value: str) -> None:
    if key == "activation_function" and "." in value and not _ACTIVATION.fullmatch(value):
        raise _refused(path, f"it names '{_shown(value)}', which is not an activation of torch.nn")
    if key == "tokenizer_class" and "." in value and not _SENTENCE_TOKENIZER.fullmatch(value):
        raise _refused(path, f"it names '{_shown(value)}', which is not a tokenizer of sentence_transformers")
    if key == "method" and not _METHOD.fullmatch(value):
        raise _refused(path, f"it names the method '{_shown(value)}', which does not return features")
    if key.endswith("_implementation") and not re.fullmatch(r"\w+", value):
        raise _refused(path, f"its '{key}' is '{_shown(value)}', which is code from the hub")
    if key == "transformers_weights" and not _is_plain(value):
        raise _refused(path, f"it names the weights '{_shown(value)}', a file elsewhere")
    if key not in _NOTES and _leads_out(key, value):
        raise _refused(path, f"its '{_shown(key)}' is '{_shown(value)}', a file elsewhere on this machine")


def _leads_out(key: str, value: str) -> bool:
    """Return whether a text is a path outside the model folder."""
    is_path = (
        value.startswith(("/", "~", "\\"))
        or ".." in re.split(r"[/\\]", value)
        or key.endswith(("_file", "_path", "_dir"))
    )
    if not is_path or not value or "\0" in value or len(value) > 4096:
        return False
    return os.path.lexists(os.path.expanduser(value)) and value not in ("/", "~", "//")


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and not set(name) & set("/\\\0:")


def _shown(value: Any) -> str:
    return one_line(value)[:80]


def _refused(path: Path, reason: str) -> TrichordError:
    return TrichordError(f"{path}: refused: {reason}; choose another model")
