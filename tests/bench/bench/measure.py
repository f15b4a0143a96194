# SPDX-License-Identifier: Apache-2.0
"""What a line of the report is, and how its figures come together.

A ratio is formed within one round, from two runs next to each other in time, so that a machine that
gets slower or faster in the course of a bench does not count; the line shows the median of the
rounds' ratios, with the least and the greatest.
"""

import statistics


class Line:
    """One figure. With a reference: the ratio of ours to theirs; without: ours, in its unit."""

    def __init__(self, name, title, unit, sense=">=", target=None, ratio=True):
        self.name, self.title, self.unit = name, title, unit
        self.sense, self.target, self.ratio = sense, target, ratio
        self.ours, self.theirs = [], []

    @property
    def measured(self):
        return bool(self.ours) and (not self.ratio or bool(self.theirs))

    def figures(self):
        if self.ratio:
            return [a / b for a, b in zip(self.ours, self.theirs)]
        return self.ours

    @property
    def median(self):
        return statistics.median(self.figures())

    @property
    def ok(self):
        """None where there is no target."""
        if self.target is None or not self.measured:
            return None
        return self.median >= self.target if self.sense == ">=" else self.median <= self.target

    def as_json(self):
        out = {"name": self.name, "title": self.title, "kind": "ratio" if self.ratio else "value",
               "unit": self.unit, "measured": self.measured, "sense": self.sense,
               "target": self.target, "ok": self.ok}
        if self.measured:
            f = self.figures()
            out.update(median=self.median, min=min(f), max=max(f), runs=len(f), ours=self.ours)
            if self.ratio:
                out.update(theirs=self.theirs, ours_median=statistics.median(self.ours),
                           theirs_median=statistics.median(self.theirs))
        return out

    def as_text(self):
        if not self.measured:
            return f"{self.title:<58} not measured"
        f = self.figures()
        mark = {True: "ok", False: "UNDER" if self.sense == ">=" else "OVER", None: ""}[self.ok]
        target = f"{self.sense} {show(self.target)}" if self.target is not None else ""
        if self.ratio:
            value = f"{self.median:6.3f}"
            spread = f"{min(f):.3f}-{max(f):.3f}"
            sides = (f"{show(statistics.median(self.ours))} / "
                     f"{show(statistics.median(self.theirs))} {self.unit}")
        else:
            value = f"{show(self.median):>6}"
            spread = f"{show(min(f))}-{show(max(f))}"
            sides = self.unit
        return f"{self.title:<58} {value}  ({spread:<13}) {target:<9} {mark:<5}  {sides}"


def show(x):
    if x == 0:
        return "0"
    if abs(x) >= 100:
        return f"{x:,.0f}"
    if abs(x) >= 10:
        return f"{x:.1f}"
    return f"{x:.3g}"


def heading():
    return (f"{'':<58} {'median':>6}  ({'min-max':<13}) {'target':<9} {'':<5}  "
            "median of zcache / reference")
