"""The paper's experiments: each one is a suite file and the tables and figures made from its rows."""
