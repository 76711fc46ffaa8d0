"""What all tests share: how hypothesis draws, and signals as a terminal would leave them."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

# How quick a draw is says more about the machine than about the code.
settings.register_profile("inferq", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("inferq")

# A shell that runs the suite in the background has children ignore SIGINT, and theirs too: Ctrl-C could not be tested.
if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
    signal.signal(signal.SIGINT, signal.default_int_handler)
