"""The one door to models: a lean process of its own. Imports no database, no kernel, nothing above."""
