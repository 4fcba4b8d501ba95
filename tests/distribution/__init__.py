"""What is installed: beside other people's packages, from a wheel, and where Triton is not to be had."""
