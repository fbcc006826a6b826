"""Generated installation files, and the stack that runs from here."""
