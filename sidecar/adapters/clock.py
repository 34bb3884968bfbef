"""The machine's clocks: ports.Clock."""

import time


class SystemClock:
    """One that may be set at any time, for what is dated, and one that nobody sets."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def steady_ms(self) -> int:
        """Milliseconds since some moment before the start."""
        return time.monotonic_ns() // 1_000_000
