"""Specify what is measured: cells, suite files, their criteria and expansion, and how a cell may end."""
