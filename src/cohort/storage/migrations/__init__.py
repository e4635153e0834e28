"""How a database came to its tables, one file per change."""
