"""Compare the time of an extraction with the ideal time, and with processing one video at a time.

The ideal time is (decode CPU-seconds + encode CPU-seconds) / cores, where each is measured alone in this process with one
thread. The time of the extraction is that of the whole command, from its start to the committed store, including the start of
its processes. Processing one video at a time decodes and then encodes each video, as comparable tools do.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from results import record


def pieces(videos: list[Path], encoder: object, log_mel: object) -> tuple[float, float, float]:
    """Process one video after the other; return decode CPU-seconds, encode CPU-seconds and seconds by the clock."""
    from trichord.media import pictures, sound

    decode_s = encode_s = 0.0
    began = time.monotonic()
    for path in videos:
        at = time.process_time()
        frames = np.stack([picture for _, picture in pictures(path, [encoder.frames])])  # type: ignore[attr-defined]
        blocks = list(sound(path, sample_rate_hz=16000))
        middle = time.process_time()
        encoder.encode(frames)  # type: ignore[attr-defined]
        for _ in log_mel.encode(lambda blocks=blocks: iter(blocks)):  # type: ignore[attr-defined]
            pass
        decode_s += middle - at
        encode_s += time.process_time() - middle
    return decode_s, encode_s, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=60, help="number of videos (40 s, 454x256, 30 frames per second)")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    import torch

    from trichord.features.spectrogram import LogMel
    from trichord.features.visual import load_visual_encoder
    from trichord.world import write_world

    torch.set_num_threads(1)
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="trichord-time-") as name:
        root = Path(name)
        write_world(root / "videos", num_train=arguments.videos - 1, num_test=1)
        videos = sorted((root / "videos").rglob("*.mp4"))
        encoder, log_mel = load_visual_encoder(), LogMel()
        pieces(videos[:1], encoder, log_mel)  # warm-up
        ratios, speedups, rows = [], [], []
        for run in range(arguments.runs):
            decode_s, encode_s, serial_s = pieces(videos, encoder, log_mel)
            began = time.monotonic()
            command = [
                sys.executable,
                "-m",
                "trichord",
                "extract",
                str(root / "videos"),
                "--store",
                str(root / f"s{run}"),
            ]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            whole_s = time.monotonic() - began
            ideal_s = (decode_s + encode_s) / cores
            ratios.append(whole_s / ideal_s)
            speedups.append(serial_s / whole_s)
            rows.append(
                (
                    f"run {run + 1}: decode + encode CPU-s, total s",
                    f"{decode_s:.1f} + {encode_s:.1f}, {whole_s:.1f}",
                    "",
                )
            )
    rows.append(("total time / ideal time, median", f"{np.median(ratios):.3f}", "at most 1.15"))
    rows.append(("speed relative to one video at a time, median", f"{np.median(speedups):.2f} x ({cores} cores)", ""))
    record("bench_extract_time.py", f"Extraction time, {len(videos)} videos of 40 s", rows)


if __name__ == "__main__":
    main()
