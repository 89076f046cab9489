"""Sweeps on a SLURM cluster: profiles, submission through submitit, cells in flight, and the program of a job."""
