"""`python -m fusetune.kernels.static`: what the machine code of every shipped kernel says."""

from fusetune.kernels.static.compile import main

main()
