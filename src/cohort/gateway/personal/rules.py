"""Exact rules behind the patterns: a run of digits is a card only if its checksum says so. Pure, standard library only.

Each rule gets the text a pattern matched, and the characters before and behind it; it says where in that text something stands, and how many
places it had to look at.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from functools import lru_cache

from cohort.gateway.personal.cards import RUN_CHARS_MAX, Span, cards

__all__ = ["RULES", "Span"]

Found = tuple[list[Span], int]
Rule = Callable[[str, str, str], Found]
ADDRESSES_REMEMBERED = 4096
IBAN_CHARS_MAX = 80
"""Of the longest, with a separator behind each."""
_IBAN_BEGIN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}[0-9]{2}")

IBAN_LENGTHS: Mapping[str, int] = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28, "CH": 21, "CR": 22,
    "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22,
    "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30,
    "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31,
    "MU": 30, "NL": 18, "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SE": 24, "SI": 19,
    "SK": 24, "SM": 27, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
}  # fmt: skip
"""By country: ISO 13616, the registry of national formats."""
PHONE_DIGITS = range(8, 16)
"""E.164: at most 15, and fewer than 8 are hardly international."""


def card(text: str, before: str, behind: str) -> Found:
    """Every card of a run of digits."""
    return cards(text, not before.isalpha(), not behind.isalpha())


def ibans(text: str, _before: str, _behind: str) -> Found:
    """Every account number of a run of groups: one may stand behind something that only begins like one."""
    if len(text) > RUN_CHARS_MAX:
        return [], len(text)
    spans: list[Span] = []
    begins = [found.start() for found in _IBAN_BEGIN.finditer(text)]
    for start in begins:
        end = start + iban(text[start : start + IBAN_CHARS_MAX])
        if end > start and (not spans or start >= spans[-1][1]):
            spans.append((start, end))
    return spans, len(begins)


def iban(text: str) -> int:
    """The beginning of its country's length, when it leaves 1 divided by 97 (ISO 13616, ISO/IEC 7064): capital letters may follow."""
    wanted, end = IBAN_LENGTHS.get(text[:2].upper(), 0), 0
    while end < len(text) and wanted:
        wanted -= text[end] not in " -"
        end += 1
    packed = text[:end].replace(" ", "").replace("-", "")
    whole = not wanted and packed and not text[end : end + 1].isalnum()
    turned = packed[4:] + packed[:4]
    return end if whole and int("".join(str(int(letter, 36)) for letter in turned)) % 97 == 1 else 0


@lru_cache(ADDRESSES_REMEMBERED)
def is_ip(text: str) -> bool:
    """A public address: private, loopback and documentation ranges are nobody's."""
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def is_phone(text: str) -> bool:
    """As many digits as an international number has, or ten in the groups in which North America writes them."""
    digits = _digits(text)
    if text.startswith("+"):
        return len(digits) in PHONE_DIGITS
    return len(digits) == 10 and digits[0] not in "01" and digits[3] not in "01"


def is_ssn(text: str) -> bool:
    """A number the United States may have given out: no group of zeros, no area 666 or from 900 on (Social Security Administration)."""
    area, group, serial = text.split("-")
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def is_email(text: str) -> bool:
    """Lengths of RFC 5321; no label of the domain is empty or begins or ends with a hyphen."""
    local, _, domain = text.rpartition("@")
    labels = domain.split(".")
    return len(local) <= 64 and len(domain) <= 253 and all(label and label[0] != "-" and label[-1] != "-" for label in labels)


def secret(text: str, _before: str, _behind: str) -> Found:
    """Keys and tokens have a shape of their own: the pattern is the rule."""
    return [(0, len(text))], 1


def _all(rule: Callable[[str], bool]) -> Rule:
    return lambda text, _before, _behind: ([(0, len(text))] if rule(text) else [], 1)


RULES: Mapping[str, Rule] = {
    "card": card,
    "email": _all(is_email),
    "iban": ibans,
    "ip": _all(is_ip),
    "phone": _all(is_phone),
    "secret": secret,
    "ssn": _all(is_ssn),
}


def _digits(text: str) -> str:
    return "".join(character for character in text if "0" <= character <= "9")
