"""All benchmarks, one after another; options go to each of them.

python benchmarks/run_all.py --out benchmarks/results
python benchmarks/run_all.py --quick
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SUBJECTS = ("steps", "data", "records", "startup", "flat", "scaling")


def main() -> None:
    failed = []
    for subject in SUBJECTS:
        print(f"\n## {subject}", flush=True)
        script = Path(__file__).with_name(f"{subject}.py")
        if subprocess.run([sys.executable, str(script), *sys.argv[1:]], check=False).returncode:
            failed.append(subject)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
