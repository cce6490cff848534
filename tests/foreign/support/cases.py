"""A count of what holds and what does not: every row of every table is a case of its own."""

import re
import signal
import sys
import traceback
from contextlib import contextmanager

# What the manual says an epoch is.
EPOCH = re.compile(r"[0-9a-f]{16}")


class Cases:
    def __init__(self):
        self.passed = 0
        self.failed = 0

    @contextmanager
    def case(self, name):
        """One case: it fails with whatever its body raises, and the others go on."""
        try:
            yield
        except Exception:
            self.fail(name)
        else:
            self.passed += 1

    def fail(self, name):
        self.failed += 1
        print(f"FAILED  {name}\n{traceback.format_exc()}", flush=True)


def equal(actual, wanted, what="value"):
    """`wanted` may hold patterns, which have to match as a whole, and types, of which the value has to be."""
    if not _matches(actual, wanted):
        raise AssertionError(f"{what}\n  is     {actual!r}\n  wanted {wanted!r}")


def _matches(actual, wanted):
    if isinstance(wanted, re.Pattern):
        return isinstance(actual, str) and wanted.fullmatch(actual) is not None
    if isinstance(wanted, type):
        return isinstance(actual, wanted)
    if isinstance(wanted, dict):
        same_keys = isinstance(actual, dict) and actual.keys() == wanted.keys()
        return same_keys and all(_matches(actual[key], value) for key, value in wanted.items())
    if isinstance(wanted, (list, tuple)):
        same_length = isinstance(actual, type(wanted)) and len(actual) == len(wanted)
        return same_length and all(map(_matches, actual, wanted))
    return actual == wanted


def main(suites):
    """Runs every suite, prints the count, and returns the exit status. A signal stops the hubs on its way out."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    cases = Cases()
    for suite in suites:
        try:
            suite(cases.case)
        except Exception:
            # Outside its cases: the rest of them were not run.
            cases.fail(suite.__name__)
    print(f"{cases.passed} passed, {cases.failed} failed", flush=True)
    return 1 if cases.failed or not cases.passed else 0
