"""amago_ray: distributed in-context reinforcement learning with AMAGO on Ray."""
