"""A command line in one argument, as a list of words."""

from __future__ import annotations

import shlex

from cohort.base.errors import CohortError


def split_words(text: str, field: str) -> list[str]:
    """As a shell would split it. Errors: FIELD_INVALID: a quote is open."""
    try:
        return shlex.split(text)
    except ValueError as error:
        what = f"{field}: {text[:100]!r} cannot be split into words: {error}"
        raise CohortError("FIELD_INVALID", what, field=field, hint="Close every quote.") from error
