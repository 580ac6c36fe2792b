"""A model of scale: how long it takes to label many episodes, and what it waits for. docs/scale.md has its table.

    python benchmarks/scale_model.py [--episodes 1000000] [--frames 300] [--cameras 2] [--decode-ms 3.9] [--encode-gflop 8.8] ...

Everything is a rate that was measured, or an assumption that its option names; nothing is run. The parts of a job overlap, so a job takes
as long as its slowest part on the machines that it has.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

HOUR = 3600.0


@dataclass(frozen=True)
class Site:
    """Machines of one kind. read_gb_s: what all of them read together from shared storage, in GB a second."""

    name: str
    machines: int
    cores: int
    gpus: int
    read_gb_s: float


SITES = (
    Site("2 cores", 1, 2, 0, 0.5),
    Site("one machine, 128 cores, 8 GPUs", 1, 128, 8, 5.0),
    Site("100 machines of 64 cores", 100, 64, 0, 20.0),
    Site("100 machines of 32 cores, 4 GPUs", 100, 32, 4, 20.0),
)


@dataclass(frozen=True)
class Work:
    """What an episode costs: seconds of one core, seconds of one GPU (None: it cannot do without), and what the driver does."""

    name: str
    core_s: float
    gpu_s: float
    core_s_without_gpu: float | None
    gb: float
    driver_s: float


def works(args: argparse.Namespace) -> list[Work]:
    """Returns the three kinds of labelling: bound by decoding, by an image encoder, by a vision-language model."""
    images = args.frames * args.cameras
    decode_s, gb = images * args.decode_ms / 1e3, images * args.kb_per_image / 1e6
    driver_s = args.driver_ms / 1e3 + args.frames * args.join_us / 1e6
    flops = args.gpu_tflops * 1e12 * args.utilisation
    shown = args.frames / args.fps * args.vlm_fps
    tokens = shown / 2 * args.tokens_per_pair + args.prefixes * args.tokens_per_question
    vlm_s = (2 * args.vlm_billions * 1e9 * tokens + 2 * args.vision_billions * 1e9 * 4 * shown / 2 * args.tokens_per_pair) / flops
    to_shown = args.decode_ms / 1e3 * args.frames  # a video is decoded from its key frames on, so nearly all of one camera
    return [
        Work("decode: SARM, built-in encoder", decode_s + images * args.pixels_ms / 1e3, 0.0, 0.0, gb, driver_s),
        Work(
            "encode: SARM, CLIP ViT-B/32",
            decode_s,
            images * args.encode_gflop * 1e9 / flops,
            images * args.encode_cpu_ms / 1e3,
            gb,
            driver_s,
        ),
        Work("VLM: TOPReward, 8B", to_shown, vlm_s, None, gb / args.cameras, driver_s),
    ]


def hours(work: Work, site: Site, episodes: int) -> tuple[float, str] | None:
    """Returns how long the episodes take and what they wait for; None if the site has no GPU and the work needs one."""
    if site.gpus == 0 and work.core_s_without_gpu is None:
        return None
    cores, gpus = site.machines * site.cores, site.machines * site.gpus
    core_s = work.core_s + (0.0 if gpus else work.core_s_without_gpu or 0.0)
    parts = {"cores": core_s / cores, "storage": work.gb / site.read_gb_s, "the driver": work.driver_s}
    if gpus and work.gpu_s:
        parts["GPUs"] = work.gpu_s / gpus
    slowest = max(parts, key=lambda name: parts[name])
    return parts[slowest] * episodes / HOUR, slowest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=1_000_000)
    parser.add_argument("--frames", type=int, default=300, help="of an episode")
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--cameras", type=int, default=2)
    parser.add_argument("--decode-ms", type=float, default=3.9, help="measured: AV1, 480 x 640, one core (docs/benchmarks.md)")
    parser.add_argument("--pixels-ms", type=float, default=0.3, help="the built-in encoder, of one core")
    parser.add_argument("--encode-cpu-ms", type=float, default=67.0, help="measured: CLIP ViT-B/32, one core (docs/benchmarks.md)")
    parser.add_argument("--encode-gflop", type=float, default=8.8, help="CLIP ViT-B/32, an image, multiplications and additions")
    parser.add_argument("--gpu-tflops", type=float, default=312.0, help="assumed: an A100 in bfloat16")
    parser.add_argument("--utilisation", type=float, default=0.4, help="assumed: the part of it that is reached")
    parser.add_argument("--vlm-billions", type=float, default=8.0, help="parameters of the language model")
    parser.add_argument("--vision-billions", type=float, default=0.6, help="parameters of its vision tower, which sees 4 patches a token")
    parser.add_argument("--vlm-fps", type=float, default=2.0, help="frames a second that it is shown, of one camera")
    parser.add_argument("--tokens-per-pair", type=float, default=300.0, help="of two frames of 480 x 640")
    parser.add_argument("--prefixes", type=float, default=15.0)
    parser.add_argument("--tokens-per-question", type=float, default=60.0)
    parser.add_argument("--kb-per-image", type=float, default=5.0, help="assumed: AV1 at LeRobot's quality")
    parser.add_argument("--driver-ms", type=float, default=5.6, help="measured: what the driver does for an answer (docs/scale.md)")
    parser.add_argument("--join-us", type=float, default=0.85, help="measured: a row joined and read back")
    args = parser.parse_args()
    print(
        "| "
        + " | ".join(["one million episodes" if args.episodes == 1_000_000 else f"{args.episodes} episodes", *(s.name for s in SITES)])
        + " |"
    )
    print("|" + "---|" * (len(SITES) + 1))
    for work in works(args):
        cells = [hours(work, site, args.episodes) for site in SITES]
        print("| " + " | ".join([work.name, *("needs a GPU" if cell is None else f"{cell[0]:.1f} h, {cell[1]}" for cell in cells)]) + " |")


if __name__ == "__main__":
    main()
