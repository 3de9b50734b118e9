"""The driver's side: which actors a run has, whether they live, and what becomes of their reports."""
