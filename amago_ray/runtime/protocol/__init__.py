"""What processes tell each other, and the few calls of Ray that all are written with."""
