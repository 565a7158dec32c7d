#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws what fabricmem-bench --json=FILE measured as one picture; docs/bench.md says how to read it.

    tools/bench_chart.py bench.json bench.svg

Exit code: 0 drawn, 1 the file is no such document, 2 a wrong command line or no matplotlib.
"""
import json
import re
import sys

OURS, RAW = "#1f77b4", "#7f7f7f"
OTHERS = ["#ff7f0e", "#2ca02c", "#d62728", "#9467bd"]


def measured(document, prefix):
    """The results of one case, without those that were skipped."""
    return [r for r in document["results"] if r["name"].startswith(prefix) and "skipped" not in r]


def series_of(result, library="library"):
    """What was measured in turns, by name."""
    series = {library: result["library"]}
    if "raw" in result:
        series["raw"] = result["raw"]
    series.update(result.get("beside", {}))
    return series


def colour_of(name, index):
    return {0: OURS}.get(index) or (RAW if name == "raw" else OTHERS[(index - 1) % len(OTHERS)])


def bars(axes, results, labels, title, library="library"):
    """Groups of bars, one group a result; whiskers are the least and most of the runs' medians."""
    names = list(dict.fromkeys(name for result in results for name in series_of(result, library)))
    width = 0.8 / max(len(names), 1)
    for index, name in enumerate(names):
        at, heights, below, above = [], [], [], []
        for group, result in enumerate(results):
            series = series_of(result, library).get(name)
            if series is None:
                continue
            at.append(group - 0.4 + width * (index + 0.5))
            heights.append(series["median_us"])
            below.append(series["median_us"] - series["least_us"])
            above.append(series["most_us"] - series["median_us"])
        axes.bar(at, heights, width, yerr=[below, above], capsize=2, label=name, color=colour_of(name, index))
    axes.set_xticks(range(len(results)), labels)
    # From zero where that can be seen: on a logarithmic axis a bar's length says nothing.
    medians = [s["median_us"] for r in results for s in series_of(r, library).values()]
    if max(medians) > 50 * min(medians):
        axes.set_yscale("log")
    finish(axes, title, "microseconds")


def lines(axes, results, x_of, values, title, unit, x_label):
    """One line a name of `values`, which says how to take it from a result."""
    for index, (name, value_of) in enumerate(values):
        points = sorted((x_of(r), value_of(r)) for r in results)
        axes.plot(*zip(*points), marker="o", label=name, color=colour_of("", index))
    axes.set_xscale("log", base=2)
    xs = sorted({x_of(r) for r in results})
    axes.set_xticks(xs, [str(x) for x in xs])
    axes.set_ylim(bottom=0)
    axes.set_xlabel(x_label)
    finish(axes, title, unit)


def finish(axes, title, unit):
    axes.set_title(title, fontsize=10)
    axes.set_ylabel(unit)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=7)


def number_in(name):
    return int(re.search(r"\d+", name).group())


def tail(results, prefix):
    return [r["name"][len(prefix):].strip() for r in results]


def draw_cache(axes, results):
    figures = ["hits/us", "hits/us, the same entry"]
    values = [(n, lambda r, n=n: r["figures"][n]) for n in figures]
    lines(axes, results, lambda r: number_in(r["name"]), values, "import cache: hits of all threads", "hits/us", "threads")


def draw_bandwidth(axes, results):
    names = list(results[0]["figures"])
    values = [(n.replace("GB/s ", ""), lambda r, n=n: r["figures"][n]) for n in names]
    place = results[0]["name"].rsplit("/", 1)[1]
    lines(axes, results, lambda r: number_in(r["name"]), values, f"copies, {place} memory", "GB/s", "MiB a copy")


def panels_of(document):
    """What there is to draw, each as a function of the axes."""
    panels = []

    def add(results, draw):
        if results:
            panels.append(lambda axes: draw(axes, results))

    def add_bars(prefix, title, library="library"):
        add(measured(document, prefix), lambda axes, r: bars(axes, r, tail(r, prefix), title, library))

    add_bars("allocate ", "allocate and free")
    add([r for r in measured(document, "cache hit,")], draw_cache)
    add_bars("peers ", "import the memory of peers")
    add_bars("flags ", "round trip of a flag", "wait_until()")
    add_bars("pingpong ", "round trip of 64 bytes")
    copies = measured(document, "bandwidth ")
    for place in ("device", "host"):
        add([r for r in copies if r["name"].endswith(place)], draw_bandwidth)
    once = [r for name in ("lifecycle", "import") for r in measured(document, name)]
    add(once, lambda axes, r: bars(axes, r, [x["name"].replace(" ", "\n") for x in r], "make or import 2 MiB once"))
    return panels


def draw(document, file, pyplot):
    panels = panels_of(document)
    if not panels:
        raise ValueError("there is nothing in it that a chart shows")
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure, all_axes = pyplot.subplots(rows, columns, figsize=(7 * columns, 3.8 * rows), squeeze=False)
    for axes, panel in zip(all_axes.flat, panels):
        panel(axes)
        axes.tick_params(axis="x", labelsize=7)
    for axes in list(all_axes.flat)[len(panels):]:
        axes.remove()
    title = f"fabricmem-bench: {document['driver']} driver, {document['driver_version']}, device {document['device']}, {document['date']}"
    if document.get("caveat"):
        title += f"\n{document['caveat']}"
    figure.suptitle(title, fontsize=9)
    figure.tight_layout(rect=(0, 0, 1, 0.97))
    figure.savefig(file)


def main(arguments):
    if len(arguments) != 2 or arguments[0].startswith("-"):
        print("bench_chart.py: usage: bench_chart.py BENCH.json PICTURE.svg|png|pdf", file=sys.stderr)
        return 2
    try:
        import matplotlib
        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        print("bench_chart.py: matplotlib is not installed: pip install matplotlib, or apt install python3-matplotlib",
              file=sys.stderr)
        return 2
    source, target = arguments
    try:
        with open(source, encoding="utf-8") as file:
            document = json.load(file)
        if document.get("program") != "fabricmem-bench":
            raise ValueError("it is none of fabricmem-bench's")
        draw(document, target, pyplot)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        print(f"bench_chart.py: {source}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
