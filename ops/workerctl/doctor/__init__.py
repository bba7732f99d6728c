"""What may be wrong with an installation, found by looking: one module for each thing that is looked at."""
