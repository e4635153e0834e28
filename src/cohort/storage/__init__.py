"""The database, its migrations, and content-addressed blobs."""
