"""One target in a process of its own, for libFuzzer ends the process: `python -m tests.fuzz.one NAME …`.

What follows the name is libFuzzer's. What the decoders import is instrumented as it is imported, so
nothing of the sidecar may be imported before.
"""

from __future__ import annotations

import logging
import sys

import atheris  # type: ignore[import-untyped]


def main() -> None:
    """Fuzz until libFuzzer has enough."""
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=["sidecar"], exclude=["sidecar.rpc"]):
        from sidecar import logs
        from tests.fuzz import targets

    logs.route()
    logging.disable(logging.CRITICAL)
    atheris.Setup(sys.argv, targets.find(name).take)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
