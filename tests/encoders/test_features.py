"""The feature cache: same bits with and without it, nothing lost, nothing left running, memory that does not grow with the episode."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from milepost.core.edits import reordered, with_images
from milepost.core.errors import DataError
from milepost.core.types import ArrayFrames, Episode
from milepost.datasets.reader import open_dataset
from milepost.encoders.clip import ClipEncoder
from milepost.encoders.features import FeatureCache, cache_folder
from milepost.encoders.pixels import PixelImages, reduce_images
from milepost.testing import CAMERA, ListDataset, dot_episodes

DATA = Path(__file__).parents[1] / "data"
WRIST = "observation.images.wrist"


class WatchedFrames(ArrayFrames):
    """Frames that count how far they were read, can break on the way, and say whether they were closed."""

    breaks_at: int | None = None
    error: BaseException = DataError("the video is damaged")
    read, closed = 0, False

    def chunks(self, size: int = 64) -> Iterator[np.ndarray]:
        vars(self)["closed"] = False
        try:
            for chunk in super().chunks(size):
                if self.breaks_at is not None and self.read >= self.breaks_at:
                    raise self.error
                vars(self)["read"] = self.read + len(chunk)
                yield chunk
        finally:
            vars(self)["closed"] = True


def watched(length: int = 100, *, index: int = 0, **settings: object) -> tuple[Episode, WatchedFrames]:
    rng = np.random.default_rng(index)
    frames = WatchedFrames(rng.integers(0, 256, (length, 20, 24, 3), dtype=np.uint8))
    vars(frames).update(settings)
    return Episode(index, 0, "look", 10.0, length, np.zeros((length, 1), np.float32), {CAMERA: frames}), frames


def decoding() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("milepost-decode")]


class Interrupted(PixelImages):
    """The user presses Ctrl-C while the third batch is encoded."""

    calls = 0

    def encode(self, prepared):
        self.calls += 1
        if self.calls == 3:
            raise KeyboardInterrupt
        return super().encode(prepared)


@pytest.fixture(scope="module")
def clip() -> ClipEncoder:
    return ClipEncoder.load(str(DATA / "clip_tiny"))


def test_cached_and_uncached_are_the_same_bits(clip, tmp_path):
    dataset = open_dataset(DATA / "dataset_v3", episodes=[2, 4])
    cache = FeatureCache(tmp_path, dataset.fingerprint, encoder=clip)
    first = cache.features(dataset[0], dataset.cameras)
    again = FeatureCache(tmp_path, dataset.fingerprint, encoder=clip).features(dataset[0], dataset.cameras)
    without = FeatureCache(None, "", encoder=clip).features(dataset[0], dataset.cameras)
    in_line = FeatureCache(None, "", encoder=clip, overlap=False).features(dataset[0], dataset.cameras)
    assert first.shape == (dataset[0].length, 2, 512)
    assert first.dtype == np.float16
    for other in (again, without, in_line):
        np.testing.assert_array_equal(first.view(np.uint16), other.view(np.uint16))
    images = np.concatenate([*dataset[0].camera(WRIST).chunks()])
    np.testing.assert_array_equal(first[:, 1], clip.images(images).astype(np.float16))


@pytest.mark.parametrize("length", [1, 15, 16, 17, 63, 64, 65, 130])
def test_every_frame_once_whatever_the_length(length, tmp_path):
    episode, frames = watched(length)
    cache = FeatureCache(tmp_path, "data", encoder=PixelImages())
    features = cache.features(episode, [CAMERA])
    np.testing.assert_array_equal(features[:, 0], reduce_images(frames.images))
    assert frames.read == length
    np.testing.assert_array_equal(cache.features(episode, [CAMERA]), features)
    assert frames.read == length  # the second time nothing was decoded
    assert frames.closed


def test_a_stream_is_each_episodes_features_in_order(tmp_path):
    episodes = dot_episodes(6)
    cache = FeatureCache(tmp_path, "data", encoder=PixelImages())
    expected = [FeatureCache(None, "", encoder=PixelImages()).features(episode, [CAMERA]) for episode in episodes]
    cache.features(episodes[1], [CAMERA])
    cache.features(episodes[4], [CAMERA])  # some are on disk, the others are not
    told: list[tuple[int, int]] = []
    cache.on_frames = lambda *at: told.append(at)
    for one, other in zip(cache.stream(episodes, [CAMERA]), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    total = sum(episode.length for episode in episodes)
    assert told[-1] == (total, total)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_cameras_are_kept_one_by_one_and_in_the_order_asked_for(tmp_path):
    dataset = open_dataset(DATA / "dataset_v3", episodes=[4])
    cache = FeatureCache(tmp_path, dataset.fingerprint, encoder=PixelImages())
    top, wrist = dataset.cameras
    both = cache.features(dataset[0], [wrist, top])
    np.testing.assert_array_equal(cache.features(dataset[0], [top]), both[:, 1:])
    np.testing.assert_array_equal(cache.features(dataset[0], [top, wrist]), both[:, ::-1])
    assert len(list(tmp_path.rglob("*.npy"))) == 2


def test_datasets_encoders_and_preprocessings_do_not_meet(clip, tmp_path):
    episode, _ = watched(5)
    other = ClipEncoder.load(str(DATA / "clip_tiny"), precision="bfloat16")
    for fingerprint, encoder in (("a", clip), ("b", clip), ("a", other), ("a", PixelImages())):
        FeatureCache(tmp_path, fingerprint, encoder=encoder).features(episode, [CAMERA])
    assert len(list(tmp_path.rglob("about.json"))) == 4
    different = PixelImages()
    different.preprocessing = "something else"  # type: ignore[misc]
    FeatureCache(tmp_path, "a", encoder=different).features(episode, [CAMERA])
    assert len(list(tmp_path.rglob("about.json"))) == 5


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", None])
def test_a_damaged_file_is_made_again(damage, tmp_path):
    episode, _ = watched(40)
    cache = FeatureCache(tmp_path, "data", encoder=PixelImages())
    features = cache.features(episode, [CAMERA])
    (path,) = tmp_path.rglob("*.npy")
    path.write_bytes(path.read_bytes()[:-100] if damage is None else damage)
    np.testing.assert_array_equal(cache.features(episode, [CAMERA]), features)
    assert np.load(path).shape == (40, 768)


def test_an_episode_of_another_length_is_made_again(tmp_path):
    cache = FeatureCache(tmp_path, "data", encoder=PixelImages())
    cache.features(watched(40)[0], [CAMERA])
    assert cache.features(watched(50)[0], [CAMERA]).shape == (50, 1, 768)


def test_an_interrupted_run_keeps_what_is_done_and_goes_on(tmp_path):
    episodes = [watched(100, index=i)[0] for i in range(3)]
    cache = FeatureCache(tmp_path, "data", encoder=Interrupted())
    with pytest.raises(KeyboardInterrupt):  # the first episode is two batches
        list(cache.stream(episodes, [CAMERA]))
    assert not decoding()
    assert len([*tmp_path.rglob("*.npy")]) == 1
    assert not [*tmp_path.rglob(".*")]  # no half-written file
    assert all(episode.camera(CAMERA).closed or not episode.camera(CAMERA).read for episode in episodes)
    expected = [reduce_images(episode.camera(CAMERA).images) for episode in episodes]
    read = episodes[0].camera(CAMERA).read
    for features, right in zip(FeatureCache(tmp_path, "data", encoder=PixelImages()).stream(episodes, [CAMERA]), expected, strict=True):
        np.testing.assert_array_equal(features[:, 0], right)
    assert episodes[0].camera(CAMERA).read == read


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("error", [DataError("the video is damaged"), KeyboardInterrupt(), MemoryError()])
def test_what_goes_wrong_while_decoding_is_raised_here(overlap, error, tmp_path):
    episode, frames = watched(200, breaks_at=80, error=error)
    with pytest.raises(type(error)):
        FeatureCache(tmp_path, "data", encoder=PixelImages(), overlap=overlap).features(episode, [CAMERA])
    assert frames.closed
    assert not decoding()
    assert not [*tmp_path.rglob("*.npy")]


def test_a_reader_that_stops_early_is_refused():
    episode, frames = watched(200)
    vars(frames)["chunks"] = lambda size: iter([frames.images[:70]])
    with pytest.raises(DataError, match=r"camera 'observation.images.top': 200 frames were promised, the reader gave 70"):
        FeatureCache(None, "", encoder=PixelImages()).features(episode, [CAMERA])


def test_a_stream_given_up_leaves_nothing_running():
    episodes = [watched(100, index=i)[0] for i in range(3)]
    stream = FeatureCache(None, "", encoder=PixelImages()).stream(episodes, [CAMERA])
    next(stream)
    assert decoding()
    stream.close()
    assert not decoding()
    assert all(episode.camera(CAMERA).closed or not episode.camera(CAMERA).read for episode in episodes)


def test_decoding_does_not_run_away():
    episode, frames = watched(2000)
    seen: list[int] = []

    class Slow(PixelImages):
        def encode(self, prepared):
            seen.append(frames.read)
            return super().encode(prepared)

    FeatureCache(None, "", encoder=Slow()).features(episode, [CAMERA])
    # Two batches ready, one in the making and the chunk it is cut from.
    assert all(read <= (n + 4) * 64 + 16 for n, read in enumerate(seen))


def test_two_processes_may_fill_the_same_folder(tmp_path):
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from milepost.testing import CAMERA, dot_episodes
from milepost.encoders import FeatureCache, PixelImages
from pathlib import Path
for features in FeatureCache(Path({str(tmp_path)!r}), "dots", encoder=PixelImages()).stream(dot_episodes(20), [CAMERA]):
    print(int(features.astype(int).sum()))
"""
    both = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert outs[0] == outs[1]
    assert len(outs[0].split()) == len([*tmp_path.rglob("*.npy")]) == 20
    assert not [*tmp_path.rglob(".*")]


def test_memory_does_not_grow_with_the_episode():
    # In a process of its own: the high-water mark of this one is that of every test before.
    script = """
import resource
import numpy as np
from milepost.encoders import FeatureCache, PixelImages
from milepost.core import Episode

class Lazy:
    def __init__(self, count): self.count = count
    def __len__(self): return self.count
    def chunks(self, size):
        for start in range(0, self.count, size):
            yield np.full((min(size, self.count - start), 96, 128, 3), start % 256, np.uint8)

def peak(count):
    state = np.zeros((count, 1), np.float32)
    FeatureCache(None, "", encoder=PixelImages()).features(Episode(0, 0, "look", 10.0, count, state, {"top": Lazy(count)}), ["top"])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

print(peak(500), peak(10_000))
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    short, long = map(float, out.split())
    assert long - short < 60  # MiB; all frames at once are 350, their features 7


def test_numbers_too_large_for_half_precision_are_refused():
    class Loud(PixelImages):
        def encode(self, prepared):
            return np.full((len(prepared), 3), 1e5, np.float32)

    with pytest.raises(DataError, match="do not fit in half precision"):
        FeatureCache(None, "", encoder=Loud()).features(watched(3)[0], [CAMERA])


def test_an_unknown_camera_and_no_camera_are_refused():
    cache = FeatureCache(None, "", encoder=PixelImages())
    with pytest.raises(DataError, match="no camera 'side'"):
        cache.features(watched(3)[0], ["side"])
    with pytest.raises(DataError, match="at least one camera"):
        cache.features(watched(3)[0], [])


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_encoded(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    episode, _ = watched(100)
    with pytest.raises(DataError, match=r"cannot be kept.*--no-cache"):
        FeatureCache(tmp_path / "file", "data", encoder=PixelImages()).features(episode, [CAMERA])


def test_a_frame_takes_as_many_bytes_as_it_has_numbers(tmp_path):
    dataset = ListDataset(dot_episodes(3))
    cache = FeatureCache(tmp_path, dataset.fingerprint, encoder=PixelImages())
    for features in cache.stream(dataset.episodes, [CAMERA]):
        assert features.shape[1:] == (1, 768)
    frames = sum(episode.length for episode in dataset.episodes)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.npy")) == 3 * 128 + frames * 768  # a header of 128 bytes a file


def test_the_folder_is_the_users_or_the_usual_one(monkeypatch):
    monkeypatch.delenv("MILEPOST_CACHE", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "milepost" / "features"
    monkeypatch.setenv("MILEPOST_CACHE", "~/features")
    assert cache_folder() == Path.home() / "features"


def test_a_stream_of_edited_copies_is_not_the_recordings(tmp_path: Path) -> None:
    """A cache on disk has the recordings' features: edited copies take theirs from there by their order, or are encoded."""
    episodes = dot_episodes(2)
    cache = FeatureCache(tmp_path, "dots", encoder=PixelImages())
    plain = list(cache.stream(episodes, [CAMERA]))
    backwards = [reordered(episode, np.arange(episode.length)[::-1].copy()) for episode in episodes]
    dark = [with_images(episode, lambda images, frames: images // 2) for episode in episodes]
    for recorded, turned, darker, changed in zip(plain, cache.stream(backwards, [CAMERA]), cache.stream(dark, [CAMERA]), dark, strict=True):
        np.testing.assert_array_equal(turned, recorded[::-1])
        images = changed.camera(CAMERA)[np.arange(changed.length)]
        np.testing.assert_array_equal(darker[:, 0], reduce_images(images))
    np.testing.assert_array_equal(next(cache.stream(episodes, [CAMERA])), plain[0])
