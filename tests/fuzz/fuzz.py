"""Runs one target under libFuzzer, in the environment that `run.py` makes.

python tests/fuzz/fuzz.py TARGET [arguments of libFuzzer: directories of inputs and options]
"""

from __future__ import annotations

import sys

import atheris

# Only the code under test and the reference are instrumented: their branches lead to the cases.
with atheris.instrument_imports(include=["gateway", "tests.doubles.reference"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    name, *options = sys.argv[1:]
    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
