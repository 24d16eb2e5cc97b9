"""Checkpoints: atomic, checksummed, two kept, the newest valid one taken."""

import io
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.progress import Reporter
from pipeline.training.checkpoints import MANIFEST, CheckpointStore
from pipeline.training.state import (
    generator_states,
    read_plain,
    read_state,
    restore_generators,
    size_bytes,
    write_state,
)

FINGERPRINT = "a" * 64


def write(content: str) -> Callable[[Path], None]:
    def into(folder: Path) -> None:
        (folder / "weights.bin").write_text(content * 50)
        (folder / "deep").mkdir()
        (folder / "deep" / "state.json").write_text("{}")

    return into


class Shelf:
    """A store and what it says."""

    def __init__(self, folder: Path, fingerprint: str = FINGERPRINT, keep: int = 2) -> None:
        self.log = io.StringIO()
        self.folder = folder
        self.store = CheckpointStore(folder, fingerprint, keep=keep, reporter=Reporter(self.log))

    def fill(self, *numbers: int) -> "Shelf":
        for number in numbers:
            self.store.save(number, write(f"{number};"), 1000)
        return self

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


def test_the_newest_are_kept(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path).fill(1, 2, 10, 9)
    assert shelf.names == ["checkpoint-00000009", "checkpoint-00000010"]
    assert shelf.store.newest() == tmp_path / "checkpoint-00000010"
    assert shelf.log.getvalue() == ""


def test_nothing_is_taken_from_an_empty_folder(tmp_path: Path) -> None:
    assert Shelf(tmp_path).store.newest() is None


def test_a_save_that_fails_leaves_no_trace(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path).fill(1, 2)

    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        shelf.store.save(3, fail, 1000)
    assert shelf.names == ["checkpoint-00000001", "checkpoint-00000002"]


def test_what_a_kill_left_is_removed(tmp_path: Path) -> None:
    Shelf(tmp_path).fill(1)
    (tmp_path / ".checkpoint-00000002.tmp").mkdir()
    (tmp_path / ".checkpoint-00000002.tmp" / "half").write_text("half")
    assert Shelf(tmp_path).names == ["checkpoint-00000001"]


def test_a_number_is_saved_once(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path).fill(1, 2)
    before = (tmp_path / "checkpoint-00000002" / "weights.bin").stat().st_mtime_ns
    shelf.fill(2)
    assert (tmp_path / "checkpoint-00000002" / "weights.bin").stat().st_mtime_ns == before


def test_no_flipped_byte_and_no_cut_is_loaded(tmp_path: Path) -> None:
    """1,000 byte flips and 64 truncations: every one is seen, and the checkpoint before it is taken."""
    shelf = Shelf(tmp_path).fill(1, 2)
    newest = tmp_path / "checkpoint-00000002"
    files = {name: (newest / name).read_bytes() for name in ("weights.bin", "deep/state.json", MANIFEST)}
    rng = random.Random(4)
    for trial in range(1064):
        name = rng.choice(list(files))
        data = bytearray(files[name])
        at = rng.randrange(len(data))
        if trial < 1000:
            data[at] ^= 1 << rng.randrange(8)
        else:
            del data[at:]
        (newest / name).write_bytes(bytes(data))
        assert shelf.store.damage(newest) is not None, (name, at)
        (newest / name).write_bytes(files[name])
    assert shelf.store.damage(newest) is None


@pytest.mark.parametrize("harm", ["flip", "cut", "delete", "add", "manifest", "no manifest", "renamed"])
def test_damage_is_set_aside_with_a_message(tmp_path: Path, harm: str) -> None:
    shelf = Shelf(tmp_path).fill(1, 2)
    newest = tmp_path / "checkpoint-00000002"
    weights = newest / "weights.bin"
    if harm == "flip":
        weights.write_text("x" + weights.read_text()[1:])
    elif harm == "cut":
        weights.write_text(weights.read_text()[:-1])
    elif harm == "delete":
        weights.unlink()
    elif harm == "add":
        (newest / "more.bin").write_text("")
    elif harm == "manifest":
        text = (newest / MANIFEST).read_text()
        (newest / MANIFEST).write_text(text.replace('"number": 2', '"number": 3'))
    elif harm == "no manifest":
        (newest / MANIFEST).unlink()
    else:
        newest = newest.rename(tmp_path / "checkpoint-00000005")
    assert shelf.store.newest() == tmp_path / "checkpoint-00000001"
    aside = tmp_path / f"damaged-{newest.name}-1"
    assert shelf.log.getvalue() == (
        f"checkpoint {newest.name} is not used: {(aside / 'WHY').read_text().strip()}; set aside as {aside}\n"
    )


def test_all_damaged_means_none(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path).fill(1, 2)
    for path in tmp_path.iterdir():
        (path / "weights.bin").unlink()
    assert shelf.store.newest() is None
    assert shelf.names == ["damaged-checkpoint-00000001-1", "damaged-checkpoint-00000002-1"]


def test_another_run_s_checkpoint_is_refused(tmp_path: Path) -> None:
    Shelf(tmp_path).fill(1)
    other = Shelf(tmp_path, "b" * 64)
    assert other.store.newest() is None
    assert "it is checkpoint 1 of run aaaaaaaaaaaa" in other.log.getvalue()


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5).filter(
        lambda text: not text.startswith("tensor:")
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(tree=TREES)
def test_plain_trees_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, tree: object) -> None:
    folder = tmp_path_factory.mktemp("state")
    write_state(tree, folder)
    assert read_state(folder) == tree


def test_tensors_come_back_bit_for_bit(tmp_path: Path) -> None:
    shared = torch.arange(6.0).view(2, 3)
    tree = {
        "a": [shared, shared.t(), shared[0]], "b": torch.tensor([torch.nan, -0.0, torch.inf]),
        "c": torch.randn(3, dtype=torch.bfloat16), "d": torch.tensor(True), "e": torch.tensor(7),
    }
    write_state(tree, tmp_path)
    back = read_state(tmp_path)
    for one, other in zip([*tree["a"], *list(tree.values())[1:]], [*back["a"], *list(back.values())[1:]], strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert one.contiguous().view(-1).view(torch.uint8).tolist() == other.view(-1).view(torch.uint8).tolist()
    assert read_plain(tmp_path)["d"] == "tensor:5"
    assert size_bytes(tree) == 2 * 24 + 12 + 12 + 6 + 1 + 8


def test_a_state_holds_nothing_that_could_be_code(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="a state cannot hold function"):
        write_state({"loss": write}, tmp_path)


def test_random_generators_go_on_where_they_were(tmp_path: Path) -> None:
    import numpy as np

    def draw() -> list[float]:
        return [random.gauss(0, 1), float(np.random.normal()), float(torch.randn(())), random.random()]

    draw()
    cpu = torch.device("cpu")
    write_state(generator_states(cpu), tmp_path)
    expected = draw()
    restore_generators(read_state(tmp_path), cpu)
    assert draw() == expected
