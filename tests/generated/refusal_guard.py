"""A pytest plugin that prints how all generated cases of a run ended, and fails it if more are refused than allowed."""

from tests.generated.tally import Tally, allowed_refusals

PROPERTY = "generated cases"


class RefusalGuard:
    def __init__(self):
        self.tally = Tally()

    def pytest_runtest_logreport(self, report):
        if report.when == "call":
            for name, text in report.user_properties:
                if name == PROPERTY:
                    self.tally.merge(text)

    def rises(self):
        """Return the refusals that are not allowed; none for a run of another number of cases."""
        allowed = allowed_refusals(self.tally.total)
        return [] if allowed is None else self.tally.rises(allowed)

    def pytest_sessionfinish(self, session):
        if hasattr(session.config, "workerinput"):  # a pytest-xdist worker sees only a part
            return
        if self.rises() and session.exitstatus == 0:
            session.exitstatus = 1

    def pytest_terminal_summary(self, terminalreporter):
        if self.tally.total:
            terminalreporter.section("generated cases")
            terminalreporter.write_line(self.tally.table())
        for line in self.rises():
            terminalreporter.write_line(line, red=True)


def pytest_configure(config):
    config.pluginmanager.register(RefusalGuard(), "refusal-guard")
