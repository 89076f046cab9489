"""`python -m pai_bench` is `pai-bench`."""

from pai_bench.cli import main

if __name__ == "__main__":
    main()
