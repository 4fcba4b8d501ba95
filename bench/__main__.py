"""`python -m bench`, and the script `bench`."""


def start() -> None:
    """Run the command line as a program and exit: Ctrl-C is no traceback, from the first import to the last."""
    if __name__ == "__main__":
        # Before anything else is imported, for the current directory may hold a file of any name.
        from fusetune.bench.import_paths import leave_out_current_directory

        leave_out_current_directory()
    from fusetune.bench.interrupts import ignore_interrupts

    try:
        from fusetune.bench.cli import main

        main()
    except KeyboardInterrupt:
        ignore_interrupts()
        raise SystemExit(130) from None
    finally:
        ignore_interrupts()


if __name__ == "__main__":
    start()
