"""Check the folder of a pretrained model before a library loads it: it may name no code, no other model and no other file.

The libraries that read these folders follow what their configurations say: they import modules, join paths, open other
folders, and download from the hub. Which of this they refuse by themselves depends on their version; here it does not.
What the configurations say of sizes is checked by `network_size`.
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

MOST_BYTES = 64 << 20  # of a configuration or an index of weights
MOST_ENTRIES = 20_000
DEEPEST = 4  # folders below the model's own
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
_NOTES = ("_name_or_path", "name_or_path", "special_tokens_map_file")  # where a model came from; nothing reads it


def check_model_folder(folder: Path) -> None:
    """Check every configuration in a model's folder, at any depth.

    Raises:
        TrichordError: A configuration names code, another model or a file elsewhere; a folder in it is a link.
    """
    for path in _files_below(folder):
        name = path.name
        if name == "adapter_config.json":
            raise _refused(
                path, "the folder holds an adapter, which is loaded onto another model; merge it into that model"
            )
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
    """Each value in a JSON value, at any depth, with the key that it, or the list that it stands in, has."""
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
        listed = sorted(entries, key=lambda entry: entry.name)
    if len(listed) > MOST_ENTRIES:
        raise _refused(folder, f"it holds {len(listed):,} files, which no model does")
    for entry in listed:
        if entry.is_dir():
            if entry.is_symlink():
                raise _refused(Path(entry.path), "it is a link to a folder; put the files of the model there")
            if depth == DEEPEST:
                raise _refused(Path(entry.path), f"the folder lies more than {DEEPEST} folders deep in a model")
            if entry.name != ".git":
                yield from _files_below(Path(entry.path), depth + 1)
        else:
            yield Path(entry.path)


def read_json(path: Path) -> Any:
    """Read a JSON file of a model. Raises TrichordError if it is damaged or too large."""
    try:
        return read_json_value(path, max_bytes=MOST_BYTES)
    except (OSError, ValueError) as error:
        raise TrichordError(f"{path}: is not readable JSON ({one_line(error)[:100]}); replace the file") from None


def _check_index(path: Path, content: Any) -> None:
    """The files of weights that an index lists lie beside it."""
    listed = content.get("weight_map") if isinstance(content, dict) else None
    for name in set(map(str, listed.values())) if isinstance(listed, dict) else ():
        if not _is_plain(name):
            raise _refused(path, f"it lists weights in '{_shown(name)}', a file elsewhere")


def _check_modules(path: Path, content: Any) -> None:
    """The modules of sentence-transformers are its own, and lie in folders beside the list."""
    for module in content if isinstance(content, list) else [content]:
        if not isinstance(module, dict):
            raise _refused(path, f"it names '{_shown(module)}', code that is not of sentence_transformers")
        _check_module_type(path, module.get("type"))
        _check_module_folder(path, module.get("path", ""))


def _check_sentence_config(path: Path, content: dict[str, Any]) -> None:
    """`types` and `structure` of a router: its modules, by the folders that they lie in."""
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
        raise _refused(path, f"it names '{_shown(name)}', code that is no module of sentence_transformers")


def _check_module_folder(path: Path, name: Any) -> None:
    if name == "":
        return
    if not isinstance(name, str) or not _is_plain(name):
        raise _refused(path, f"it names the folder '{_shown(name)}', which does not lie beside it")
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
    if key in _LOADING and isinstance(value, dict) and (odd := sorted(set(value) - set(_LOADING_KEYS))):
        raise _refused(path, f"its '{key}' say '{_shown(odd[0])}', which could lead to another model or file")
    if isinstance(value, str):
        _check_text(path, key, value)


def _check_text(path: Path, key: str, value: str) -> None:
    if key == "activation_function" and "." in value and not _ACTIVATION.fullmatch(value):
        raise _refused(path, f"it names '{_shown(value)}', code that is no activation of torch.nn")
    if key == "tokenizer_class" and "." in value and not _SENTENCE_TOKENIZER.fullmatch(value):
        raise _refused(path, f"it names '{_shown(value)}', code that is no tokenizer of sentence_transformers")
    if key == "method" and not _METHOD.fullmatch(value):
        raise _refused(path, f"it names the method '{_shown(value)}', which gives no features")
    if key.endswith("_implementation") and not re.fullmatch(r"\w+", value):
        raise _refused(path, f"its '{key}' is '{_shown(value)}', code of the hub")
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
    return TrichordError(f"{path}: refused: {reason}; take another model")
