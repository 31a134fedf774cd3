"""What TensorFlow says where it reads or writes gs:// by itself, as records and checkpoints are, in one line."""

from __future__ import annotations

import re

_PLACE = re.compile(r"gs://[^\s,;'\"\]]+")
_STATUS = re.compile(r"HTTP response code (\d{3})")
_SAID = re.compile(r'"message":\s*"([^"]+)"')
_HINTS = {
    "401": "log in again with: gcloud auth application-default login",
    "403": "the account that runs this needs roles/storage.objectUser on the bucket",
    "404": "check the name, and that nothing else removed it",
}


def explained(error: BaseException) -> str | None:
    """One line about an exception of TensorFlow's that names a place under gs://; None for every other one."""
    text = str(error)
    place = _PLACE.search(text)
    if not type(error).__module__.startswith("tensorflow") or place is None:
        return None
    status, said = _STATUS.search(text), _SAID.search(text)
    why = said[1] if said else " ".join(text.split())[:200]
    hint = _HINTS.get(status[1] if status else "", "try again: training goes on from its last checkpoint")
    code = f"{status[1]} " if status else ""
    return f"{place[0].rstrip('.')}: Cloud Storage refuses TensorFlow: {code}{why}; {hint}"
