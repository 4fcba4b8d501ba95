"""`python -m bench`, and the script `bench`."""


def start() -> None:
    """Run the command line as a program and exit: Ctrl-C is no traceback, from the first import to the last."""
    if __name__ == "__main__":
        # Before anything else is imported, for the current directory may hold a file of any name.
        from bench.import_paths import leave_out_current_directory

        leave_out_current_directory()
    from bench.interrupts import ignore_interrupts

    try:
        from bench.cli import main

        main()
    except KeyboardInterrupt:
        ignore_interrupts()
        raise SystemExit(130) from None
    finally:
        ignore_interrupts()


if __name__ == "__main__":
    start()
