"""What every entry point shares: a user's mistake ends in one clear line, never in a traceback."""

from __future__ import annotations

import errno
import importlib
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from preprocessing.tensorflow_errors import explained

FORBIDDEN = tuple(os.strerror(code) for code in (errno.EACCES, errno.EPERM))
UNWRITABLE = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS))


class UserError(Exception):
    """A mistake that the user can mend. The message says what, where, and what was expected."""


def run(main: Callable[[], None]) -> None:
    """Calls an entry point: exit 0 when done, 2 for a user's mistake, 130 for Ctrl-C; other exceptions are bugs."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for name in ("__main__", "preprocessing", "trainer", "deploy"):
        logging.getLogger(name).setLevel(logging.INFO)
    # Beam logs what a step raises, with its traceback, and raises it all the same: it is told once, below.
    logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)
    # Before TensorFlow is imported: what it says of CPU features, or of a GPU that nobody has, is no news.
    has_driver = Path("/proc/driver/nvidia").exists()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if has_driver else "3")
    try:
        main()
    except UserError as error:
        sys.exit(_say(str(error)))
    except BrokenPipeError:  # whoever read the output has read enough: `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        _say("stopped")
        sys.exit(130)
    except Exception as error:
        # Arrow, DuckDB, Beam and TensorFlow each wrap a full or read-only disk in an exception of their own.
        reason = next((text for text in (*UNWRITABLE, *FORBIDDEN) if text in str(error)), None)
        if reason is None:
            told = explained(error)
            if told is None:
                raise
            sys.exit(_say(told))
        place = f" {error.filename}" if isinstance(error, OSError) and error.filename else ""
        if reason in FORBIDDEN:  # to write, or to read
            sys.exit(_say(f"cannot open{place}: {reason}"))
        sys.exit(_say(f"cannot write{place}: {reason}; nothing was replaced"))


def import_quietly(*modules: str) -> None:
    """Imports heavy modules; what their C++ prints before any logging is set up is shown only where an import fails.

    TensorFlow greets with eight lines on CPU features and absent GPUs that no environment variable silences.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            for module in modules:
                importlib.import_module(module)
        except BaseException:
            said.seek(0)
            os.write(stderr, said.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def visible(text: str) -> str:
    """`text` with what would end the line, or steer a terminal, escaped."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _say(message: str) -> int:
    for line in message.split("\n"):
        print(f"error: {visible(line)}", file=sys.stderr)
    return 2
