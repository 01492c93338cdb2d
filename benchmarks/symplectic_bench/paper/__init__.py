"""The paper's tables and figures: an experiment each, a suite file and what is shown of its rows."""
