"""A pytest plugin that fails the run if every case of a method or gradient was skipped, but for lack of a card.

Otherwise an entry of a registry that no test ran would look the same as one that passed.
"""

AXES = ("method", "gradient")


class CoverageGuard:
    def __init__(self):
        self.outcomes = {}

    def pytest_collection_modifyitems(self, items):
        for item in items:
            if item.get_closest_marker("gpu"):
                continue
            params = getattr(getattr(item, "callspec", None), "params", {})
            item.user_properties.extend((axis, str(params[axis])) for axis in AXES if axis in params)

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.skipped:
            for axis, value in report.user_properties:
                if axis in AXES:
                    self.outcomes.setdefault((axis, value), set()).add(report.outcome)

    def never_ran(self):
        return sorted(f"{axis}={value}" for (axis, value), seen in self.outcomes.items() if seen == {"skipped"})

    def pytest_sessionfinish(self, session):
        if hasattr(session.config, "workerinput"):  # a pytest-xdist worker sees only a part
            return
        if self.never_ran() and session.exitstatus == 0:
            session.exitstatus = 1

    def pytest_terminal_summary(self, terminalreporter):
        if self.never_ran():
            terminalreporter.write_line(f"every case was skipped: {', '.join(self.never_ran())}", red=True)


def pytest_configure(config):
    config.pluginmanager.register(CoverageGuard(), "coverage-guard")
