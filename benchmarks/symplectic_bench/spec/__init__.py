"""What is to be measured: cells, suite files, their expansion, and how a cell may end."""
