"""``python -m chutes_exporter`` is the command ``chutes-exporter``."""

from chutes_exporter.cli import main

if __name__ == "__main__":
    main()
