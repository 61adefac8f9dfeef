"""For all tests: the long form of the fault campaigns, and one thread a process beside others."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault(
        "OMP_NUM_THREADS", "1"
    )  # tests share the cores with those of other workers


def pytest_addoption(parser):
    parser.addoption("--faults-long", action="store_true", help="fault campaigns at full length")
