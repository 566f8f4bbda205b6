#!/usr/bin/env bash
# pytest 9.2.0 with pytest-xdist 3.8.0: --dist loadgroup doesn't keep the tests of an xdist_group together.
#
# pytest-xdist marks a group by appending "@name" to the private attribute `_nodeid` of each item. Since 9.2 pytest
# makes `nodeid` from another attribute, so the scheduler never sees the name and deals the tests out one by one. There
# is no warning: what the tests of a group share (a started job, say) is made again in each worker, and only takes longer.
# With pytest 9.1.1 the same file runs in one worker.
#
# Seen with Python 3.11:
#   pytest 9.1.1: 1 worker
#   pytest 9.2.0: 2 workers
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat > test_group.py <<'PY'
import os
import time
from pathlib import Path

import pytest


@pytest.mark.xdist_group("together")
@pytest.mark.parametrize("number", range(8))
def test_one(number):
    time.sleep(0.1)
    Path(os.environ["WORKERS"], os.environ["PYTEST_XDIST_WORKER"]).touch()
PY

python3 -m venv venv
for version in 9.1.1 9.2.0; do
  venv/bin/python -m pip install --quiet "pytest==$version" "pytest-xdist==3.8.0"
  mkdir "$version"
  WORKERS=$folder/$version venv/bin/python -m pytest -q -p no:cacheprovider -n 2 --dist loadgroup test_group.py > log 2>&1 ||
    { cat log; exit 1; }
  echo "pytest $version: $(ls "$version" | wc -l) worker(s)" | tee -a seen
done

diff seen - <<'SEEN'
pytest 9.1.1: 1 worker(s)
pytest 9.2.0: 2 worker(s)
SEEN
