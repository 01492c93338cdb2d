"""The specification of a measurement: cells, suite files and their expansion, criteria, outcomes of a cell."""
