"""Arrays into files: a disk that is full is an error, however little is left to write."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.text.arrays import append_array, save_array

FULL = Path("/dev/full")
VALUES = np.arange(5, dtype="<u2")


def test_they_are_what_numpy_writes(tmp_path: Path) -> None:
    save_array(tmp_path / "ours.npy", VALUES[::2])
    np.save(tmp_path / "theirs.npy", VALUES[::2])
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "theirs.npy").read_bytes()
    with (tmp_path / "plain.bin").open("wb") as stream:
        append_array(stream, VALUES)
        append_array(stream, VALUES[:0])
        append_array(stream, VALUES[::2])
    assert (tmp_path / "plain.bin").read_bytes() == VALUES.tobytes() + VALUES[::2].tobytes()


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
def test_a_full_disk_is_an_error() -> None:
    with pytest.raises(OSError, match="No space left"):
        save_array(FULL, VALUES)

    def write() -> None:
        with FULL.open("wb") as stream:
            append_array(stream, VALUES)

    with pytest.raises(OSError, match="No space left"):
        write()


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "pipeline").rglob("*.py")), ids=lambda p: p.stem)
def test_nobody_uses_numpy_s_own_way(path: Path) -> None:
    if path.name != "arrays.py":
        text = path.read_text(encoding="utf-8")
        assert ".tofile(" not in text
        assert "np.save(context" not in text
