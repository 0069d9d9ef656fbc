"""`python -m demoalign` is the command line."""

from demoalign.cli import main

if __name__ == "__main__":
    main()
