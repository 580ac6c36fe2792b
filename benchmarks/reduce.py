"""How fast the built-in encoder makes pictures small, against torch's averages: one number, their ratio, in one run.

python benchmarks/reduce.py
"""

import time

import numpy as np
import torch

from milepost.encoders.pixels import reduce_by_torch, reduce_images


def main() -> None:
    """Prints the milliseconds a 640 x 480 picture takes, the best of five, and the ratio."""
    torch.set_num_threads(1)
    images = np.random.default_rng(0).integers(0, 256, (32, 480, 640, 3), dtype=np.uint8)
    best = {}
    for reduce in (reduce_by_torch, reduce_images):
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            reduce(images)
            seconds.append(time.perf_counter() - start)
        best[reduce] = 1000 * min(seconds) / len(images)
    assert (reduce_by_torch(images) == reduce_images(images)).all()
    torchs, ours = best.values()
    print(f"torch {torchs:.2f} ms, whole numbers {ours:.2f} ms a picture: {torchs / ours:.1f} times faster, the same bits")


if __name__ == "__main__":
    main()
