import pytest

from symplectic_bench.__main__ import main
from symplectic_bench.commands.exit_codes import Exit


def test_windows_is_refused_in_a_sentence_before_what_cannot_be_imported_there(monkeypatch, capsys):
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == Exit.USAGE
    assert capsys.readouterr().err.startswith("symplectic-bench needs Linux or macOS.")
