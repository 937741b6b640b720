# SPDX-License-Identifier: Apache-2.0
"""Random scenes, hostile calls of ops and damaged files, many of them: `make fuzz`.

    python -m tests.fuzz --seed 7 --count 10000

The same seed gives the same cases. Each part is a program of its own, with a `--count`, which repeats what it found.
"""

import argparse
import subprocess
import sys
import time

PARTS = {
    "tests.random_scenes": 0.3,
    "tests.fuzz_ops": 0.25,
    "tests.fuzz_files": 0.33,
    "tests.fuzz_cad": 0.12,  # each case starts a process
}
"""Programs, and the share of the cases that each is given."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=10_000, help="cases of all kinds together")
    options = parser.parse_args()
    failed = []
    for part, share in PARTS.items():
        start = time.perf_counter()
        count = max(round(share * options.count), 1)
        command = [sys.executable, "-m", part, "--seed", str(options.seed), "--count", str(count)]
        print(f"\n{' '.join(command[1:])}", flush=True)
        if subprocess.run(command).returncode:
            failed.append(part)
        print(f"{part}: {count} cases in {time.perf_counter() - start:.0f} s", flush=True)
    print(f"\nfailed: {', '.join(failed) or 'none'}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
