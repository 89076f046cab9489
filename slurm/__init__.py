"""Cluster profiles, one TOML file each; `pai_bench.sweep.slurm.profiles` reads them."""
