"""Which library decodes pictures: PyAV, the reference, or torchcodec, which can decode on a GPU."""

from __future__ import annotations

from dataclasses import dataclass

from trichord.errors import TrichordError, one_line

NAMES = ("pyav", "torchcodec")


@dataclass(frozen=True)
class Decoder:
    """A decoder as it would be used here.

    Attributes:
        name: pyav or torchcodec.
        version: Of the library, with FFmpeg's where the library brings it; part of a feature's fingerprint.
        device: Where it decodes: cpu, cuda or cuda:N.
        problem: Why it cannot be used on this machine, in one line with the next action; empty if it can.
    """

    name: str
    version: str
    device: str = "cpu"
    problem: str = ""


def available_decoders() -> list[Decoder]:
    """Both decoders, usable or not; `problem` says what is wrong. Tries the imports, opens no device."""
    return [_pyav(), _torchcodec("cpu")]


def choose_decoder(name: str = "auto", device: str = "cpu") -> Decoder:
    """The decoder of that name for pictures that go to `device`.

    `auto` is torchcodec only where the device is a GPU and torchcodec loads, else PyAV: its pictures are the reference
    and the same on every machine. Raises TrichordError for an unknown name, and for one that does not load here.
    """
    if name not in ("auto", *NAMES):
        raise TrichordError(f"there is no decoder {name!r}; choose auto, {' or '.join(NAMES)}")
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
    """torchcodec loads FFmpeg's shared libraries when it is imported; whatever goes wrong there becomes `problem`."""
    try:
        import torchcodec
        from torchcodec.decoders import VideoDecoder  # noqa: F401 - loads the libraries
    except ModuleNotFoundError as error:
        missing = error.name or "torchcodec"
        return Decoder("torchcodec", "", device, f"{missing} is not installed; pip install torchcodec, or use pyav")
    except Exception as error:  # RuntimeError, OSError, ImportError: as the libraries have it
        what = f"does not load ({_reason(error)}); it needs FFmpeg's shared libraries and CUDA's, or use pyav"
        return Decoder("torchcodec", "", device, what)
    return Decoder("torchcodec", str(getattr(torchcodec, "__version__", "unknown")), device)


def _reason(error: BaseException) -> str:
    """The first line of what was wrong in the first place: torchcodec lists all it tried over a hundred lines."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return one_line(lines[0])[:160].rstrip(" .:") if lines else type(error).__name__
