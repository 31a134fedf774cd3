"""What every entry point shares: a user's mistake ends in one clear line, never in a traceback."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake that the user can mend. The message says what, where, and what was expected."""


def run(main: Callable[[], None]) -> None:
    """Calls an entry point: exit 0 when done, 2 for a user's mistake, 130 for Ctrl-C; other exceptions are bugs."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        main()
    except UserError as error:
        sys.exit(_say(str(error)))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            place = f" ({error.filename})" if error.filename else ""
            sys.exit(_say(f"cannot write{place}: {error.strerror}; nothing was replaced"))
        raise
    except KeyboardInterrupt:
        _say("stopped")
        sys.exit(130)


def _say(message: str) -> int:
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr)
    return 2
