"""The control actor, where every process reports and learns what to do, and the plain classes in it."""
