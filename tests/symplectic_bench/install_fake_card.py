"""A card is faked wherever this module is imported."""

from tests.symplectic_bench.fake_card import install

install()
