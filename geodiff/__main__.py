# SPDX-License-Identifier: Apache-2.0
"""``python -m geodiff`` is the ``geodiff`` command."""

from geodiff.cli import main

if __name__ == "__main__":
    main(prog_name="geodiff")
