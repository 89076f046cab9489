"""Status, logs, and cancellation of sweeps."""
