"""`python -m cohort.surfaces.cli` is `cohort`."""

from cohort.surfaces.cli.main import main

main()
