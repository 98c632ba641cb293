import dataclasses
import subprocess
import sys
import threading

import cv2
import ml_collections
import numpy as np
import pytest

from segnext_jax.config import base_config
from segnext_jax.datasets import SPECS
from segnext_jax.images.decode import encode_label
from segnext_jax.pipeline import RandomScaleCropFlip, TrainLoader


@dataclasses.dataclass
class Generated:
    """Examples made in memory: the grey level of an image is its number."""

    count: int = 10
    bad: int | None = None

    def __len__(self):
        return self.count

    def size(self, index):
        return (20 + index, 33)

    def __getitem__(self, index):
        size = self.size(index)
        labels = np.arange(size[0] * size[1]).reshape(size).astype(np.uint8) % 7
        if index == self.bad:
            labels[3, 4] = 37
        image = np.full((*size, 3), index, np.uint8)
        return {
            "image": cv2.imencode(".png", image)[1].tobytes(),
            "label": encode_label(labels),
            "image_id": f"photo_{index}",
        }


def configure(**options) -> ml_collections.ConfigDict:
    """Return a configuration with fields of the run or of its data set."""
    config = base_config()
    small = {"batch_size": 4, "seed": 5, "crop_size": (16, 24), "base_scale": (64, 48)}
    for name, value in {**small, "num_workers": 0, "num_threads": 2, **options}.items():
        section = config if name in ("batch_size", "seed") else config.data
        section[name] = value
    return config


def loader(source=None, process_index=0, process_count=1, **options) -> TrainLoader:
    config = configure(**options)
    return TrainLoader(
        Generated() if source is None else source,
        RandomScaleCropFlip.from_config(config.data, SPECS["shapes"]),
        config,
        process_index=process_index,
        process_count=process_count,
    )


def take(count: int, **options) -> list[dict[str, np.ndarray]]:
    with loader(**options) as batches:
        return [next(batches) for _ in range(count)]


def assert_same(left, right) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def numbers(batch) -> list[int]:
    """Return which examples a batch holds; the fill colour is none of them."""
    return [int(image[0, 0, 0]) for image in batch["image"]]


def test_batches_are_bytes_of_the_given_shape():
    (batch,) = take(1)
    assert batch.keys() == {"image", "label", "size"}
    assert batch["image"].shape == (4, 16, 24, 3) and batch["image"].dtype == np.uint8
    assert batch["label"].shape == (4, 16, 24) and batch["label"].dtype == np.uint8
    assert set(np.unique(batch["label"])) <= set(range(7)) | {255}


def test_each_epoch_holds_each_example_once_and_epochs_join():
    seen = [n for batch in take(15) for n in numbers(batch)]  # 60 of 10 examples.
    epochs = [seen[start : start + 10] for start in range(0, 60, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6


def test_the_seed_decides_order_and_crops():
    first = take(5)
    assert_same(first, take(5))
    other = take(5, seed=6)
    assert [numbers(b) for b in first] != [numbers(b) for b in other]


def test_an_example_is_cropped_anew_in_each_epoch():
    batches = take(2, source=Generated(count=1), batch_size=8)
    crops = np.concatenate([batch["label"] for batch in batches])
    assert len({crop.tobytes() for crop in crops}) > 8


def test_the_size_is_that_of_the_part_that_is_no_padding():
    (batch,) = take(1, base_scale=(20, 12), batch_size=40, source=Generated(9))
    assert batch["size"].shape == (40, 2) and batch["size"].dtype == np.int32
    for image, label, (height, width) in zip(*batch.values(), strict=True):
        is_padding = np.ones(label.shape, bool)
        is_padding[:height, :width] = False
        # Neither the labels nor the grey level of an image is that of padding.
        np.testing.assert_array_equal(label == 255, is_padding)
        np.testing.assert_array_equal(image[..., 0] == 124, is_padding)
    assert (batch["size"] < (16, 24)).any() and (batch["size"] == (16, 24)).any()


@pytest.mark.parametrize("num_workers", [1, 2, pytest.param(8, marks=pytest.mark.slow)])
def test_worker_processes_do_not_change_the_batches(num_workers):
    assert_same(take(7, num_workers=num_workers), take(7))


def test_threads_do_not_change_the_batches():
    assert_same(
        take(7, num_threads=4, prefetch_batches=5),
        take(7, num_threads=1, prefetch_batches=1),
    )


@pytest.mark.parametrize("process_count", [2, 4])
def test_the_shares_of_the_processes_are_the_batch_of_one(process_count):
    parts = [
        take(4, process_index=i, process_count=process_count)
        for i in range(process_count)
    ]
    joined = [
        {name: np.concatenate([part[step][name] for part in parts]) for name in whole}
        for step, whole in enumerate(take(4))
    ]
    assert_same(joined, take(4))


def test_rare_classes_draw_their_images_more_often():
    class Unbalanced(Generated):
        def __getitem__(self, index):
            labels = np.zeros((20, 30), np.uint8)
            if index == 3:
                labels[:4] = 5
            return {**super().__getitem__(index), "label": encode_label(labels)}

        def size(self, index):
            return (20, 30)

    source = Unbalanced(10)
    rare = {"source": source, "rare_class_temperature": 1e-3, "batch_size": 50}
    seen = [n for batch in take(8, **rare) for n in numbers(batch)]
    # The rare class is drawn nearly always, and one example alone has it.
    assert seen.count(3) > 390
    even = {**rare, "rare_class_temperature": 1e3}
    seen = [n for batch in take(8, **even) for n in numbers(batch)]
    # Both classes are drawn equally often: 1/2 + 1/2 * 1/10, and 1/20 for the others.
    assert abs(seen.count(3) / 400 - 0.55) < 0.08  # Standard deviation: 0.025.
    assert all(3 <= seen.count(n) <= 45 for n in range(10) if n != 3)
    assert_same(take(3, **even), take(3, **even, num_threads=1))
    with loader(**even) as batches:
        batches.restore({"next_batch": 2})
        assert_same([next(batches)], take(3, **even)[2:])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_restoring_goes_on_in_the_middle_of_an_epoch(num_workers):
    unbroken = take(9)
    with loader() as first:
        for _ in range(4):
            next(first)
        state = first.state()
    assert state == {"next_batch": 4, "num_examples": first.num_examples()}
    with loader(num_workers=num_workers) as second:
        second.restore(state)
        assert second.next_batch == 4
        assert_same([next(second) for _ in range(5)], unbroken[4:])


def test_a_running_loader_can_be_set_back():
    batches = take(3)
    with loader() as again:
        for _ in range(3):
            next(again)
        again.restore({"next_batch": 1})
        assert_same([next(again), next(again)], batches[1:])


def test_restoring_far_ahead_is_quick_and_changes_the_rest():
    with loader() as batches:
        batches.restore({"next_batch": 10**9})
        far = next(batches)
        assert batches.state()["next_batch"] == 10**9 + 1
    assert far["image"].shape == (4, 16, 24, 3)
    assert not np.array_equal(far["label"], take(1)[0]["label"])


def test_examples_that_came_or_went_before_a_restart_are_noticed(caplog):
    with loader() as batches:
        state = batches.state()
        batches.restore(state)
        batches.restore({"next_batch": 1})  # As older checkpoints have it.
        assert not caplog.records
        batches.restore(state | {"num_examples": 3})
    assert (
        f"There are {batches.num_examples()} training examples, and there were 3"
        in (caplog.text)
    )


@pytest.mark.parametrize("state", [{}, {"next_batch": -1}])
def test_a_state_of_something_else_is_refused(state):
    with pytest.raises(ValueError, match="the state of a loader is"):
        loader().restore(state)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_bad_example_reaches_the_caller_as_one_sentence(num_workers):
    source = Generated(bad=6)
    batches = loader(source, num_workers=num_workers)
    with pytest.raises(ValueError) as error:
        for _ in range(4):
            next(batches)
    assert str(error.value).startswith(
        "photo_6: label ids must lie in [0, 6] or be 255 (ignored): found 37 on 1 "
    )
    assert not getattr(error.value, "__notes__", [])
    # The state still points at the batch that failed.
    assert batches.next_batch < 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"batch_size": 6, "process_count": 4},
            "6 examples and 4 processes. Use 4 or 8",
        ),
        ({"batch_size": 2, "process_count": 3}, "Use 3 or 3|Use 3"),
        ({"process_index": 1}, r"process_index must lie in \[0, 1\)"),
        ({"source": Generated(count=0)}, "nothing to train on: Generated"),
    ],
)
def test_impossible_options_are_refused_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        loader(**options)


def test_a_batch_may_be_larger_than_the_set():
    (batch,) = take(1, source=Generated(count=3), batch_size=7)
    assert sorted(set(numbers(batch))) == [0, 1, 2]


def test_closing_stops_the_threads_and_workers():
    import multiprocessing

    for num_workers in (0, 1):
        batches = loader(num_workers=num_workers)
        next(batches)
        batches.close()
        batches.close()
        assert not multiprocessing.active_children()
    prefix = "grain-prefetch"
    alive = [t for t in threading.enumerate() if t.name.startswith(prefix)]
    for thread in alive:  # They end once their last task has.
        thread.join(timeout=10)
    assert not any(thread.is_alive() for thread in alive)
    # A closed loader goes on where it was.
    assert_same([next(batches)], take(2)[1:])
    batches.close()


SCRIPT = """
if __name__ == "__main__":
    import sys
    sys.path.insert(0, {folder!r})
    from test_loader import loader
    kept = loader(num_workers={num_workers})
    next(kept)
    {end}
"""


@pytest.mark.parametrize(
    ("num_workers", "end"), [(0, "pass"), (1, "pass"), (1, "raise SystemExit(3)")]
)
def test_a_program_that_ends_with_a_running_loader_leaves_nothing(
    num_workers, end, tmp_path
):
    import pathlib

    script = tmp_path / "program.py"
    folder = str(pathlib.Path(__file__).parent)
    script.write_text(SCRIPT.format(folder=folder, num_workers=num_workers, end=end))
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == (0 if end == "pass" else 3)
    assert not done.stderr  # No traceback, no leaked shared memory.
