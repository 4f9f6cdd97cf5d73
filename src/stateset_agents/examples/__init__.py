"""Ready-made agents and programs, and the files that come with the package."""
