"""`python -m fusetune.kernels.static`: the static analysis of every shipped kernel."""

from fusetune.kernels.static.compile import main

main()
