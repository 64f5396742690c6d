"""Text that fits: labels no longer than their axis, names at the ends of lines that do not cover each other."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

NAME_PT = 10.5  # from one name to the next
HEADING = 36  # letters of a line above the names
ROUNDS = 6  # wrapping a label takes room from the axis, which may then need it wrapped again


def fit(figure: Figure) -> None:
    """Wrap every axis label and title to the length of its axis."""
    for _ in range(ROUNDS):
        figure.draw_without_rendering()
        changed = [_wrapped(*pair) for axes in figure.axes for pair in _labels(axes)]
        if not any(changed):
            return


def _labels(axes: Axes) -> list[tuple[Text, float]]:
    """Each label and the room it has, pixels."""
    room = axes.get_window_extent()
    return [(axes.yaxis.label, room.height), (axes.xaxis.label, room.width), (axes.title, room.width)]


def _wrapped(label: Text, room: float) -> bool:
    """Whether the label was too long and could be wrapped."""
    text = label.get_text()
    extent = label.get_window_extent()
    length = extent.height if label.get_rotation() == 90 else extent.width
    longest = max(map(len, text.split("\n")), default=0)
    if not text or length <= room or longest <= 8:
        return False
    label.set_text("\n".join(textwrap.wrap(" ".join(text.split()), max(8, int(0.97 * longest * room / length)))))
    return label.get_text() != text


def named_ends(axes: Axes, ends: Sequence[tuple[str, float, float, str]], heading: str = "") -> None:
    """Names right of the axes in the order of their lines' ends (name, x, y, colour), each led to from its end."""
    figure = axes.get_figure()
    figure.draw_without_rendering()  # settles the limits and the height
    high = axes.get_window_extent().height * 72 / figure.dpi
    to_share = axes.transScale + axes.transLimits
    places = [float(to_share.transform((x, y))[1]) for _, x, y, _ in ends]
    for (name, x, y, colour), place in zip(ends, spread(places, NAME_PT / high), strict=True):
        axes.annotate(
            name, (x, y), xytext=(1.03, place), textcoords="axes fraction", va="center", fontsize=8, color=colour,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.6, "shrinkA": 1, "shrinkB": 3,
                "relpos": (0, 0.5)},
        )  # fmt: skip
    if heading:
        text = "\n".join(textwrap.wrap(heading, HEADING))
        axes.annotate(text, (1.03, 1.02), xycoords="axes fraction", fontsize=8, color="#444444", va="bottom")


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Places moved as little as keeps them `gap` apart, their order kept; about the middle of each crowd."""
    order = sorted(range(len(places)), key=lambda k: places[k])
    crowds: list[tuple[float, list[int]]] = []  # centre, members from below
    for k in order:
        crowds.append((places[k], [k]))
        while len(crowds) > 1 and _touch(crowds[-2], crowds[-1], gap):
            below, above = crowds[-2:]
            members = below[1] + above[1]
            crowds[-2:] = [(sum(places[m] for m in members) / len(members), members)]
    out = [0.0] * len(places)
    for centre, members in crowds:
        for rank, member in enumerate(members):
            out[member] = centre + gap * (rank - (len(members) - 1) / 2)
    return out


def _touch(below: tuple[float, list[int]], above: tuple[float, list[int]], gap: float) -> bool:
    return above[0] - below[0] < gap * (len(below[1]) + len(above[1])) / 2
