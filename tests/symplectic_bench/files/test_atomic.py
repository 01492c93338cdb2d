"""Files are complete or unchanged."""

import pytest

from symplectic_bench.files.atomic import replace_text, replacing


def test_a_file_is_replaced_only_once_it_is_complete(tmp_path):
    file = tmp_path / "new" / "file.txt"
    replace_text(file, "one")
    with replacing(file) as part:
        part.write_text("two")
        assert file.read_text() == "one"
    assert file.read_text() == "two"
    assert [path.name for path in file.parent.iterdir()] == ["file.txt"]


def test_a_failed_write_leaves_the_file_unchanged(tmp_path):
    file = replace_text(tmp_path / "file.txt", "one")
    with pytest.raises(OSError, match="full"), replacing(file) as part:
        part.write_text("half")
        raise OSError("full")
    assert file.read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]
