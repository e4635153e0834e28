"""Does a kept answer say what the model says now? Judged by letters and guards alone, without another model. Pure but for numpy."""

from __future__ import annotations

from cohort.gateway.cache.semantic.acceptance import Grade
from cohort.gateway.cache.semantic.embedding import NoVector, lexical
from cohort.gateway.cache.semantic.text import features

SAME_COSINE = 0.8
OTHER_COSINE = 0.5


def grade(kept: str, fresh: str) -> Grade:
    """SAME: equal, or alike with the same numbers, identifiers and negations. OTHER: a number, identifier or side differs, or little is alike."""
    if " ".join(kept.split()).casefold() == " ".join(fresh.split()).casefold():
        return Grade.SAME
    one, other = features(kept), features(fresh)
    if set(one.numbers) != set(other.numbers) or one.identifiers != other.identifiers or (one.negations == 0) != (other.negations == 0):
        return Grade.OTHER
    try:
        cosine = float(lexical(kept) @ lexical(fresh))
    except NoVector:
        return Grade.OTHER
    return Grade.SAME if cosine >= SAME_COSINE else Grade.UNCLEAR if cosine >= OTHER_COSINE else Grade.OTHER
