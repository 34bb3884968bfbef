"""The `sidecar` command."""

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (the process's own by default); returns the exit code."""
    try:
        from sidecar.cli import program  # noqa: PLC0415 - it takes its time, in which Ctrl-C may come
    except KeyboardInterrupt:
        return 130
    return program.main(argv)
