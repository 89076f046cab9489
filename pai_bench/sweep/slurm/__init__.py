"""Sweeps on a SLURM cluster: profiles, submission through submitit, what is in flight, and the task itself."""
