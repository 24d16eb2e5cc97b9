"""Writing durably."""

from pathlib import Path

import pytest

from pipeline.errors import ExitCode, StorageError
from pipeline.storage import require_space, write_durably


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_durably(path, "one\n")
    write_durably(path, "zwölf\n")
    assert path.read_bytes() == "zwölf\n".encode()
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]


def test_room_is_asked_for_before_anything_is_written(tmp_path: Path) -> None:
    require_space(tmp_path, 1)
    with pytest.raises(StorageError, match=r"A checkpoint of 1,000,000,000,000 MB does not fit on the disk of .* MB are"
                                           r" free.*the earlier checkpoints are kept\.") as refused:
        require_space(tmp_path, 10**18)
    assert refused.value.exit_code is ExitCode.STORAGE
