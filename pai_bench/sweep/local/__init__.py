"""Execution of a sweep on this machine, by worker processes or in the calling process."""
