"""What a person sees: live progress and the final report. Prints what `bench.stats` found; computes nothing."""
