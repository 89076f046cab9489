"""Steps of tests/gpu.py; each module is run as a process and appends its measurements to one file."""
