"""The paper's experiments. Each is a suite file and the tables and figures made from its rows."""
