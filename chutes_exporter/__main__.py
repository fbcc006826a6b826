"""Entry point of ``chutes-exporter`` and ``python -m chutes_exporter``."""

from chutes_exporter.cli import main

if __name__ == "__main__":
    main()
