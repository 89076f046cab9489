"""The pruning methods, one file each; imported as `pai_bench.methods` by the registry alone."""
