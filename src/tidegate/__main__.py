"""`tidegate`, or `python -m tidegate`."""

from tidegate.console import main

if __name__ == "__main__":
    main()
