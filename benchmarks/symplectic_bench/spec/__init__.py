"""What is measured: cells, suite files and their expansion, criteria, and the outcomes of a cell."""
