"""Keeps credentials out of names, errors and logs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus


def redact_url(url: str) -> str:
    """Return a URL, which may be invalid, with everything that could be a credential replaced by ``***``."""
    shown = re.sub(r"(:/*).*@", r"\1***@", url, flags=re.DOTALL)
    return re.sub(r"\?.*", "?***", shown, flags=re.DOTALL)


def redact_text(text: str, secrets: Iterable[str | None]) -> str:
    """Return a text with these secrets replaced by ``***``, in plain and in percent-encoded form."""
    forms = {form for secret in secrets if secret for form in (secret, quote(secret, ""), quote_plus(secret))}
    for form in sorted(forms, key=len, reverse=True):  # a secret may contain another
        text = text.replace(form, "***")
    return text


def redact_repr(value: object) -> str:
    """Return a description of an invalid backend or URL: only text is quoted, since URL objects print passwords."""
    if isinstance(value, str):
        return repr(redact_url(value))
    return repr(value) if value is None or isinstance(value, (bool, type)) else f"<{type(value).__name__}>"
