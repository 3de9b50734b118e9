"""`python -m amago_ray.cli` is `amago-ray`."""

from amago_ray.cli.app import main

main()
