"""From rows to findings: summaries, trials and claims, growth exponents, and the comparison with a baseline."""
