"""A skip that nobody expects fails the run: a test that stops running is found when it stops.

A pytest plugin, which conftest.py names. Skips are compared by their reasons.
"""

import sys

import pytest

# Every reason to skip that is no fault, and why the tests do without.
EXPECTED = {
    "no llama-quantize, neither in PATH nor named by $LLAMA_QUANTIZE": "no package of it is pinned; others compare too",
    "this file system keeps the pages of files that nobody uses": "it has no disk below it, as tmpfs",
}
if sys.platform != "linux":
    EXPECTED |= {
        "no /dev/shm": "DeepSpeed's buffers are elsewhere",
        "the pack is made on Linux only": "it is for machines with NVIDIA's cards",
    }

unexpected = pytest.StashKey[set]()


def pytest_configure(config):
    config.stash[unexpected] = set()
    config.pluginmanager.register(Collector(config.stash[unexpected]))


class Collector:
    def __init__(self, found: set):
        self.found = found

    def pytest_runtest_logreport(self, report):
        self.note(report)

    # Of a whole file; processes of pytest-xdist do not pass these on.
    def pytest_collectreport(self, report):
        self.note(report)

    def note(self, report):
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2].removeprefix("Skipped: ")
            if reason not in EXPECTED:
                self.found.add((report.nodeid, reason))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        self.found.update(map(tuple, getattr(node, "workeroutput", {}).get("unexpected skips", [])))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    found = session.config.stash[unexpected]
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["unexpected skips"] = sorted(found)
    elif found and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    found = config.stash[unexpected]
    if found:
        terminalreporter.section("skips that are not expected", sep="=", red=True)
        for node, reason in sorted(found):
            terminalreporter.write_line(f"{node}: {reason}")
        terminalreporter.write_line("Tests/Interop/skips.py lists those that are.")
