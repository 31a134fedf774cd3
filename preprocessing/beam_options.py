"""Beam's options, read strictly."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from preprocessing.cli import UserError

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions


def beam_options(flags: list[str], command: str) -> PipelineOptions:
    """The options in `flags`, which `command` did not know itself.

    Raises UserError for a flag that no option defines: Beam itself would drop it and go on.
    """
    from apache_beam.options.pipeline_options import PipelineOptions

    def subclasses(cls: type) -> list[type]:
        found: list[type] = cls.__subclasses__()
        return found + [deeper for sub in found for deeper in subclasses(sub)]

    known = argparse.ArgumentParser(add_help=False, allow_abbrev=False, conflict_handler="resolve")
    for cls in subclasses(PipelineOptions):
        add = getattr(cls, "_add_argparse_args", None)
        if add is not None:
            add(known)
    _, unknown = known.parse_known_args(flags)
    if unknown:
        raise UserError(f"{unknown[0]}: no flag of {command} (see --help) and no option of Apache Beam")
    return PipelineOptions(flags)
