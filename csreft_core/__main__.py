"""`python -m csreft_core` and `csreft`: the command line."""

import os
import sys
import warnings
from io import TextIOWrapper

from csreft_core.base.passive_waiting import wait_passively
from csreft_core.cli import main


def start() -> int:
    """Run the command of this process; the exit code. The installed `csreft` calls it too."""
    wait_passively()
    if not sys.warnoptions:
        # A line on stderr means a mistake; notes of libraries are none. `-W default` shows them.
        warnings.simplefilter("ignore")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A Windows console may not know every character of a prompt or an answer.
            stream.reconfigure(encoding="utf-8", errors="replace")
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of a pipe (`| head`) has left. Python would complain again at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:  # also a second one, while a training saves
        return 130
    return code


if __name__ == "__main__":
    sys.exit(start())
