"""Words everyone speaks: identifiers, clock, errors, canonical encoding, documents."""
