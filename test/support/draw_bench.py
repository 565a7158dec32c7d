#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# draw_bench.py CHART FOLDER BENCH: a chart of what the bench says of the emulated driver. Without matplotlib the script has to
# say so.
import pathlib
import subprocess
import sys

chart, folder, bench = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
folder.mkdir(exist_ok=True)
measured, picture, wrong = folder / "bench.json", folder / "bench.svg", folder / "wrong.json"
picture.unlink(missing_ok=True)
wrong.write_text('{"program": "another"}', encoding="utf-8")


def draw(source):
    done = subprocess.run([sys.executable, chart, source, picture], stderr=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stderr


try:
    import matplotlib  # noqa: F401
except ImportError:
    code, said = draw(wrong)
    if code != 2 or "matplotlib is not installed" not in said:
        sys.exit(f"without matplotlib: exit code {code}, {said}")
    print("FABRICMEM-SKIPPED: python3 has no matplotlib")
    sys.exit(0)

code, said = draw(wrong)
if code != 1 or "none of fabricmem-bench's" not in said or picture.exists():
    sys.exit(f"of another program's document: exit code {code}, {said}")

command = [bench, "--driver", "emulated", "--rounds", "3", "--runs", "2", f"--json={measured}"]
subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
code, said = draw(measured)
if code != 0:
    sys.exit(f"exit code {code}, {said}")
# Text is drawn as shapes, and what it was stands beside them in comments.
drawn = picture.read_text(encoding="utf-8")
titles = ["allocate and free", "import cache: hits of all threads", "import the memory of peers", "round trip of a flag",
          "round trip of 64 bytes", "copies, device memory", "copies, host memory", "make or import 2 MiB once"]
missing = [title for title in titles if f"<!-- {title} -->" not in drawn]
if missing:
    sys.exit(f"not in the chart: {missing}")
