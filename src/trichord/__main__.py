"""The command line, as run by `python -m trichord`."""

from trichord.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
