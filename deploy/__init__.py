"""What installs the exporter where it runs, as far as it is made from other files or run from here."""
