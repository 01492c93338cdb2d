"""Byte sizes: read from text, and written as text."""

import pytest

from symplectic_adjoint.memory.byte_size import format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("size", "nbytes"),
    [
        *((3, 3), ("3", 3), ("3 B", 3), ("2kB", 2000), ("2 KiB", 2048)),
        *(("1.5MiB", 3 * 2**19), ("2GB", 2 * 10**9), ("1 TiB", 2**40)),
    ],
)
def test_a_size_is_a_number_with_an_optional_unit(size, nbytes):
    assert parse_bytes("budget", size) == nbytes


@pytest.mark.parametrize("size", ["", "GB", "2 Gb", "-1 GB", "1e9"])
def test_unreadable_text_is_refused(size):
    with pytest.raises(ValueError, match="budget must be a number of bytes or a string such as"):
        parse_bytes("budget", size)


@pytest.mark.parametrize("size", [1.5, True, None])
def test_only_whole_numbers_and_text_are_sizes(size):
    with pytest.raises(TypeError, match="budget must be"):
        parse_bytes("budget", size)


@pytest.mark.parametrize("size", [0, -1, "0 MiB"])
def test_a_size_is_positive(size):
    with pytest.raises(ValueError, match="budget must be positive"):
        parse_bytes("budget", size)


def test_sizes_are_written_with_three_digits_and_a_binary_unit():
    sizes = [5, 2048, 3 * 2**19, 2**31, 123_456_789]
    assert [format_bytes(nbytes) for nbytes in sizes] == ["5 B", "2 KiB", "1.5 MiB", "2 GiB", "118 MiB"]


@pytest.mark.parametrize("nbytes", [5, 1023, 1025, 10_241, 123_456_789, 2**30 + 1])
def test_a_size_rounded_up_is_enough_when_it_is_read_back(nbytes):
    assert nbytes <= parse_bytes("budget", format_bytes(nbytes, up=True)) <= 1.01 * nbytes
