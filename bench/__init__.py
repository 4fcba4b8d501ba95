"""The suite's root: specs, processes, records, statistics, reports and the command line."""

__version__ = "0.1.0"
