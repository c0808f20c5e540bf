"""The errors that a user can cause, as one small tree.

    CsreftError
      ConfigError            a setting is missing, unknown or out of range
      SkillSetError          a skill file cannot be read or is inconsistent
      RunError               a run folder is missing, half-written, busy or of another kind
      AdapterError           an adapter file does not fit the base or the configuration
      UnsupportedModelError  a base model that this project cannot load or edit
      NotEnoughMemoryError   the machine has less memory than this needs
      StorageError           the disk is full, read-only or closed to this program

A message says what was expected, what was given and what to do. Every other exception is a bug
and is never caught on the way to the user.
"""


class CsreftError(Exception):
    """Base of all errors that are the user's to mend."""


class ConfigError(CsreftError):
    """A setting is missing, unknown or out of range."""


class SkillSetError(CsreftError):
    """A skill file cannot be read or is inconsistent; names the line and the field."""


class RunError(CsreftError):
    """A run folder is missing, half-written, busy or of another kind."""


class AdapterError(CsreftError):
    """An adapter file does not fit the base or the configuration."""


class UnsupportedModelError(CsreftError):
    """A base model that this project cannot load or edit."""


class NotEnoughMemoryError(CsreftError):
    """The machine has less memory than this needs; says how much, and what would fit."""


class StorageError(CsreftError):
    """The disk is full, read-only or closed to this program; names what was to be written."""


def first_line(error: BaseException, most: int = 300) -> str:
    """The first line of a library's message, short enough for ours; its type where it says nothing.

    Args:
        error: Of a library.
        most: Letters of the line.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:most]
