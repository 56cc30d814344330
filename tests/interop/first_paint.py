"""How long a browser takes to show the playground: a part of `make bench`."""

import shutil
import statistics

from browser import NAMES
from playground import playground, shown

RUNS = 5
PAINT = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def first_paint():
    with playground() as program, shown(program.url) as page:
        return page.run(PAINT)


if any(map(shutil.which, NAMES)):
    times = sorted(first_paint() for _ in range(RUNS))
    print(f"The playground's first contentful paint, on loopback: {statistics.median(times):.0f} ms, median of {RUNS} (at most {times[-1]:.0f} ms)")
else:
    print("The playground's first paint is not measured: no Chrome or Chromium was found")
