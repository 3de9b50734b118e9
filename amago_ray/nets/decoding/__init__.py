"""Acting: a sequence model taken one row at a time, with its state."""
