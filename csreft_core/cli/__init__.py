"""The command line: arguments in, one call of the library, text or JSON out.

Exit code 0; 2 with one line on stderr for a user's mistake; 1 when `doctor` finds something to
mend. Torch and transformers are imported only by the commands that need them.
"""

import logging
import os
import sys
from collections.abc import Sequence

from csreft_core.cli.arguments import parser
from csreft_core.errors import CsreftError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The arguments after `python -m csreft_core`; None takes those of the process.

    Returns:
        The exit code. Only a bug raises.
    """
    # On import it warns of a faster kernel that could be had from the Hub, on stderr.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        args = parser().parse_args(argv)
        args.given = sys.argv[1:] if argv is None else [*argv]
        return args.command(args)
    except CsreftError as error:
        if os.environ.get("RANK", "0") == "0":  # one of several processes speaks for all
            print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 2
    except SystemExit as stop:  # argparse, after it has printed the help
        return int(stop.code or 0)
