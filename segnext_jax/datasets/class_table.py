"""The classes of a user's own data set: names, colours, and the file that lists them.

`classes.txt` has one line per class, in the order of the ids:

    road
    traffic light

or, with a colour (red, green, blue) for overlays and colour masks, separated by spaces,
tabs, commas or semicolons:

    road            128  64 128
    traffic light   250 170  30
    ignore            0   0   0

Names may be numbered, from 0: "0 road", "1 traffic light". A name with a comma is
written in quotes. `ignore` names a colour whose pixels neither loss nor metric counts;
it is no class and may come several times. Empty lines and lines that begin with # say
nothing. The tables of labelling tools do as well: CVAT's labelmap.txt
("road:128,64,128::"), "road = 128:64:128", and Roboflow's _classes.csv ("0, road").
"""

import colorsys
import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

from segnext_jax.datasets.spec import MAX_CLASSES, Colour, DatasetSpec
from segnext_jax.datasets.text_files import read_lines

CLASSES_FILE = "classes.txt"
# What labelling tools write in its place.
_OF_TOOLS = ("labelmap.txt", "_classes.csv")
_IGNORE = "ignore"
# Far more than 255 lines.
_MAX_BYTES = 2**20
_MAX_FAULTS = 10
_MAX_LINE = 300
# The heading of Roboflow's _classes.csv.
_HEADING = re.compile(r"pixel value\s*,\s*class", re.IGNORECASE)
_NUMBERED = re.compile(r"(\d+)[\s:.),]+(\S.*)")
_COLOURED = (
    # road 128 64 128
    re.compile(r"(.*?)[\s,;]+(\d+)[\s,;]+(\d+)[\s,;]+(\d+)"),
    # road = 128:64:128
    re.compile(r"(.*?)\s*[=:]\s*(\d+)\s*[,:]\s*(\d+)\s*[,:]\s*(\d+)"),
    # road:128,64,128:left,right:walk
    re.compile(r"(.*?):(\d+),(\d+),(\d+):[^:]*:[^:]*"),
)
_GOLDEN_RATIO = (5**0.5 - 1) / 2


@dataclasses.dataclass(frozen=True)
class ClassTable:
    """Classes of a data set whose table is not in the code.

    Attributes:
      classes: Class names in train-id order.
      colours: (red, green, blue) of each class; empty: none were given.
      ignore_colours: Colours that colour masks give to ignored pixels.
    """

    classes: tuple[str, ...]
    colours: tuple[Colour, ...] = ()
    ignore_colours: tuple[Colour, ...] = ()

    def spec(self, name: str) -> DatasetSpec:
        """Return the table as a data set; colours that were not given are made up.

        Args:
          name: Name of the data set.

        Raises:
          ValueError: If the table contradicts itself; see `DatasetSpec`.
        """
        colours = self.colours or distinct_colours(len(self.classes))
        return DatasetSpec(name, self.classes, colours, builder="folder")


def read_class_table(path: Path) -> ClassTable:
    """Read a file of classes.

    Args:
      path: The file; the module's docstring has its form.

    Returns:
      The classes in the order of their lines.

    Raises:
      FileNotFoundError: If the file does not exist.
      ValueError: If lines cannot be understood; the message gives the number of each.
    """
    if not path.is_file():
        advice = (
            "Write it, one class name per line in the order of the ids, as "
            '"road" or "road 128 64 128".'
        )
        for name in _OF_TOOLS:
            if (path.parent / name).is_file():
                advice = f"Copy {name} to it: its lines are understood."
        raise FileNotFoundError(
            f"the classes must be named: {path} does not exist. {advice}"
        )
    lines = read_lines(path, _MAX_BYTES)
    classes: dict[str, int] = {}
    colours: list[Colour] = []
    ignore_colours: list[Colour] = []
    faults = []
    for number, line in enumerate(lines, start=1):
        line = line.strip()
        if not line or line.startswith("#") or _HEADING.fullmatch(line):
            continue
        name, colour, fault = _parse(line)
        if fault:
            faults.append(f"line {number}: {fault}")
        elif name == _IGNORE:
            if colour is None:
                faults.append(f"line {number}: {_IGNORE!r} needs a colour")
            else:
                ignore_colours.append(colour)
        elif name in classes:
            faults.append(
                f"line {number}: {name!r} is the class of line {classes[name]} already"
            )
        else:
            if colours and colour is None or classes and not colours and colour:
                faults.append(
                    f"line {number}: either each class has a colour or none has one"
                )
            classes[name] = number
            colours += [colour] if colour else []
    if not classes and not faults:
        faults.append("it names no class")
    if len(classes) > MAX_CLASSES:
        faults.insert(
            0, f"it names {len(classes)} classes, and at most {MAX_CLASSES} can be"
        )
    if faults:
        num_left = len(faults) - _MAX_FAULTS
        more = f"; and {num_left} more" if num_left > 0 else ""
        raise ValueError(
            f'{path} must have one class per line, as "road" or "road 128 64 128": '
            f"{'; '.join(faults[:_MAX_FAULTS])}{more}. Correct it."
        )
    return ClassTable(_unnumbered(classes), tuple(colours), tuple(ignore_colours))


def _unnumbered(names: Iterable[str]) -> tuple[str, ...]:
    """Leave the numbers out where each name begins with its own."""
    names = tuple(names)
    parts = [_NUMBERED.fullmatch(name) for name in names]
    if all(part and int(part[1]) == i for i, part in enumerate(parts)):
        return tuple(part[2] for part in parts if part)
    return names


def _parse(line: str) -> tuple[str, Colour | None, str | None]:
    """Return name, colour and fault of a line."""
    name, colour = line, None
    if len(line) > _MAX_LINE:
        return "", None, f"it is longer than {_MAX_LINE} characters"
    for pattern in _COLOURED:
        if match := pattern.fullmatch(line):
            name = match[1].strip()
            colour = int(match[2]), int(match[3]), int(match[4])
            break
    if len(name) > 2 and name[0] == name[-1] == '"':
        name = name[1:-1].strip()
    elif "," in re.sub(r"^\d+\s*,", "", name) or ";" in name:
        fault = "is no name, and no name with three numbers"
        return "", None, f"{line!r} {fault} (a name with a comma is put in quotes)"
    if not name:
        return "", None, f"{line!r} has no name"
    if colour and max(colour) > 255:
        return "", None, f"the colour {colour} must lie in [0, 255]"
    return name, colour, None


def distinct_colours(count: int) -> tuple[Colour, ...]:
    """Return colours that are told apart easily; the first ones do not change.

    Args:
      count: How many.

    Returns:
      (red, green, blue) triples: hues by the golden ratio, in turn light and dark.
    """
    colours = []
    for index in range(count):
        red, green, blue = colorsys.hsv_to_rgb(
            (0.58 + index * _GOLDEN_RATIO) % 1,
            (0.75, 0.55, 0.95)[index % 3],
            (0.95, 0.75, 0.6)[index // 3 % 3],
        )
        colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return tuple(colours)
