"""The search of a spec: decisions in the run, epochs in its workers, everything on disk."""
