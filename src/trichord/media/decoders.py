"""The choice of the library that decodes pictures: PyAV, the reference, or torchcodec, which can decode on a GPU."""

from __future__ import annotations

from dataclasses import dataclass

from trichord.errors import TrichordError, one_line

NAMES = ("pyav", "torchcodec")


@dataclass(frozen=True)
class Decoder:
    """A decoder of pictures on this machine.

    Attributes:
        name: "pyav" or "torchcodec".
        version: Version of the library, with that of FFmpeg if the library includes it. It is part of the fingerprint of features.
        device: Device on which it decodes: "cpu", "cuda" or "cuda:N".
        problem: Reason why it cannot be used on this machine and the next action, on one line, or an empty string.
    """

    name: str
    version: str
    device: str = "cpu"
    problem: str = ""


def available_decoders() -> list[Decoder]:
    """Return both decoders, whether they are usable or not.

    The libraries are imported, but no device is opened.

    Returns:
        The decoders. `Decoder.problem` describes why a decoder is not usable.
    """
    return [_pyav(), _torchcodec("cpu")]


def choose_decoder(name: str = "auto", device: str = "cpu") -> Decoder:
    """Choose a decoder of pictures.

    Args:
        name: "pyav", "torchcodec" or "auto". "auto" selects torchcodec if the device is a GPU and torchcodec can be loaded, and
            PyAV otherwise. The pictures of PyAV are the reference and are the same on every machine.
        device: Device to which the pictures are copied.

    Returns:
        The decoder.

    Raises:
        TrichordError: If the name is unknown, or if the decoder cannot be loaded.
    """
    if name not in ("auto", *NAMES):
        raise TrichordError(f"unknown decoder {name!r}; expected auto, {' or '.join(NAMES)}")
    is_cuda = device.startswith("cuda")
    if name == "pyav" or (name == "auto" and not is_cuda):
        return _pyav()
    chosen = _torchcodec(device if is_cuda else "cpu")
    if not chosen.problem:
        return chosen
    if name == "auto":
        return _pyav()
    raise TrichordError(f"decoder torchcodec: {chosen.problem}")


def _pyav() -> Decoder:
    import av

    avcodec = ".".join(str(part) for part in av.library_versions["libavcodec"])
    return Decoder("pyav", f"{av.__version__} (avcodec {avcodec})")


def _torchcodec(device: str) -> Decoder:
    """Return the decoder torchcodec. Errors of its import, which loads the shared libraries of FFmpeg, become `problem`."""
    try:
        import torchcodec
        from torchcodec.decoders import VideoDecoder  # noqa: F401 - loads the libraries
    except ModuleNotFoundError as error:
        missing = error.name or "torchcodec"
        return Decoder("torchcodec", "", device, f"{missing} is not installed; pip install torchcodec, or use pyav")
    except Exception as error:  # RuntimeError, OSError or ImportError, depending on the libraries
        problem = f"cannot be loaded ({_reason(error)}); install the shared libraries of FFmpeg and CUDA that it needs, or use pyav"
        return Decoder("torchcodec", "", device, problem)
    return Decoder("torchcodec", str(getattr(torchcodec, "__version__", "unknown")), device)


def _reason(error: BaseException) -> str:
    """Return the first line of the original error. The message of torchcodec lists all attempts in more than a hundred lines."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return one_line(lines[0])[:160].rstrip(" .:") if lines else type(error).__name__
