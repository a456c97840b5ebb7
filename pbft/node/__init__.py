"""The shell around the core: one turn after the other, sockets, timers, metrics."""
