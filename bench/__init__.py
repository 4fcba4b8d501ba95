"""The suite's root: specs, processes, records, statistics, reports and the command line."""

if __name__ == "bench":
    # `python -m bench` in a checkout. Its own code comes first, whatever is installed, in place of the directory that
    # `python -m` has put there.
    import os
    import sys

    if sys.argv[:1] != ["-m"]:
        raise ImportError("'bench' is named 'fusetune.bench': write `from fusetune.bench...`.")
    sys.path[0] = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "src")

__all__: list[str] = []
