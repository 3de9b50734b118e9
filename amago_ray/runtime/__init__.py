"""The ports of training implemented with Ray actors: thin shells around the plain classes."""
