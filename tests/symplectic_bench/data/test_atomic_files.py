"""Files are whole or as they were."""

import pytest

from symplectic_bench.data.atomic_files import replace_text, replacing


def test_a_file_is_replaced_when_all_of_it_is_written(tmp_path):
    file = tmp_path / "new" / "file.txt"
    replace_text(file, "one")
    with replacing(file) as part:
        part.write_text("two")
        assert file.read_text() == "one"
    assert file.read_text() == "two"
    assert [path.name for path in file.parent.iterdir()] == ["file.txt"]


def test_what_fails_meanwhile_leaves_it_as_it_was(tmp_path):
    file = replace_text(tmp_path / "file.txt", "one")
    with pytest.raises(OSError, match="full"), replacing(file) as part:
        part.write_text("half")
        raise OSError("full")
    assert file.read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]
