"""Planning of sweeps: turn a request into checked runs, plan them, and estimate their cost."""
