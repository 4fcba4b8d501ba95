"""`python -m bench`."""

if __name__ == "__main__":
    # Before anything else is imported, for the current directory may hold a file of any name.
    from bench.import_paths import leave_out_current_directory

    leave_out_current_directory()

    from bench.cli import main

    main()
