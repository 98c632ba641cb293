"""The description of a segmentation data set: one class name and colour per id."""

import collections
import dataclasses
import re

Colour = tuple[int, int, int]
MAX_CLASSES = 255


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """Describe the classes, colours and splits of a prepared data set.

    Position in `classes` and `colours` is the train id, so that the number of classes
    is never written twice. The version is that of the mapping from the official labels
    to train ids: it changes whenever a prepared label would, and with it the folder
    that holds the prepared data.

    Attributes:
      name: Lower-case name; also the folder `<data_dir>/<name>/<version>` and the
        command `segnext-jax prepare <name>`.
      classes: Class names in train-id order.
      colours: One (red, green, blue) triple in [0, 255] per class.
      train_split: Name of the split that training reads by default.
      val_split: Name of the split that evaluation reads by default.
      ignore_label: Id of pixels that neither loss nor metric counts.
      version: Version of the prepared data, "major.minor.patch".
      photograph_size: (height, width) that most photographs have, in pixels; None:
        unknown.
      official_ids: Id of each class in the masks that the set's owners publish, in
        train-id order; empty: those masks are no files of such ids.
      ignored_ids: The other ids in their masks, whose pixels are ignored.
      homepage: Where its authors publish it; empty: nowhere.
      citation: What they ask to be cited.
      builder: Folder of data/ with the `prepare.py`; empty: the name is its own.
    """

    name: str
    classes: tuple[str, ...]
    colours: tuple[Colour, ...]
    train_split: str = "train"
    val_split: str = "val"
    ignore_label: int = 255
    version: str = "1.0.0"
    photograph_size: tuple[int, int] | None = None
    official_ids: tuple[int, ...] = ()
    ignored_ids: tuple[int, ...] = ()
    homepage: str = ""
    citation: str = ""
    builder: str = ""

    def __post_init__(self) -> None:
        """Refuse a table that contradicts itself.

        Raises:
          ValueError: If the name is not a lower-case identifier; a class is missing,
            empty or repeated; there are more than 255 classes; the number of colours is
            not the number of classes; a colour is not three integers in [0, 255]; the
            ignore label is a class or does not fit in a byte; or the official ids are
            not one for each class.
        """
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise ValueError(
                "a data set is named by lower-case letters, digits and underscores: "
                f"got {self.name!r}. Rename it."
            )
        if not self.classes or not all(self.classes):
            raise ValueError(
                f"data set {self.name!r} needs at least one class and no empty class "
                f"name: got {self.classes!r}. Complete its table."
            )
        if len(self.classes) > MAX_CLASSES:
            raise ValueError(
                f"data set {self.name!r} must have at most {MAX_CLASSES} classes, as "
                "labels are bytes and 255 marks ignored pixels: got "
                f"{len(self.classes)}. Merge some."
            )
        counts = collections.Counter(self.classes)
        repeated = sorted(name for name, count in counts.items() if count > 1)
        if repeated:
            raise ValueError(
                f"class names of data set {self.name!r} must differ: repeated are "
                f"{', '.join(repeated)}. Rename them."
            )
        if len(self.colours) != len(self.classes):
            raise ValueError(
                f"data set {self.name!r} needs one colour per class: got "
                f"{len(self.colours)} colours and {len(self.classes)} classes. "
                "Complete its table."
            )
        for name, colour in zip(self.classes, self.colours, strict=True):
            if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
                raise ValueError(
                    f"the colour of class {name!r} of data set {self.name!r} must be "
                    f"three values in [0, 255]: got {colour}. Correct its table."
                )
        if not len(self.classes) <= self.ignore_label <= 255:
            raise ValueError(
                f"the ignore label of data set {self.name!r} must lie in "
                f"[{len(self.classes)}, 255], or it would be a class: got "
                f"{self.ignore_label}. Use 255."
            )

        if self.official_ids and len(self.official_ids) != len(self.classes):
            raise ValueError(
                f"data set {self.name!r} needs one official id per class: got "
                f"{len(self.official_ids)} and {len(self.classes)}. Complete its table."
            )

    @property
    def train_id_of(self) -> dict[int, int]:
        """Train id of each id in the published masks; empty without such ids."""
        return dict.fromkeys(self.ignored_ids, self.ignore_label) | {
            official: train_id for train_id, official in enumerate(self.official_ids)
        }

    @property
    def num_classes(self) -> int:
        """Number of classes, the ignored pixels not counted."""
        return len(self.classes)
