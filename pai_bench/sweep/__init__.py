"""Sweeps over many cells: plan them, run them on this machine or on SLURM, and monitor them."""
