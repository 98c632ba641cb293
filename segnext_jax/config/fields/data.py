"""Fields of the data set, augmentation and input pipeline."""

import functools

from segnext_jax.config.fields.field import EVALUATION, PREDICTION, SEGMENTATION, Field
from segnext_jax.config.kinds import (
    COLOURS,
    FACTORS,
    ID_MAP,
    POSITIVE,
    SHARE,
    SIDES,
    SIZE,
    flag,
    number,
    one_of,
    optional,
    several,
    text,
    where,
    whole,
)

_NAMES = several(where(text(), bool, ""), "names, in the order of the ids")
_augmentation = functools.partial(Field, only=SEGMENTATION)
_masks = functools.partial(Field, only=SEGMENTATION, used_by=EVALUATION)

# A row of a table each: name, default, kind; meaning; what else there is to say.
# fmt: off
FIELDS = (
    Field("data.name", "ade20k", text(),
        "Key of segnext_jax.datasets.SPECS; or folder: the images in data.folder, as "
        "they are; or the name of a set that data/folder/prepare.py has made. "
        "Classification: folder, or the name of a set of data/imagenet/prepare.py.",
        used_by=PREDICTION),
    Field("data.folder", "", text(),
        "Folder with images/, masks/ and classes.txt (data/folder/README.md).",
        used_by=PREDICTION, is_resumable=True),
    Field("data.classes", (), _NAMES,
        "Class names of a set of your own. Empty: those of classes.txt or of the "
        "preparation. A run stores them, so that the network knows them.",
        used_by=PREDICTION),
    Field("data.colours", (), COLOURS,
        "(red, green, blue) of each class of a set of your own, 0 to 255. Empty: as "
        "for data.classes.", only=SEGMENTATION, used_by=PREDICTION),
    _masks("data.ignore_colours", (), COLOURS,
        "Colours of ignored pixels in masks of colours."),
    _masks("data.mask_values", "ids", one_of("ids", "colours"),
        "What the masks of a folder hold: ids (grey or palette files) or colours."),
    _masks("data.zero_is_ignore", False, flag(),
        "Whether id 0 of the masks means ignored, so that the classes begin at 1."),
    _masks("data.id_map", (), ID_MAP,
        "Pairs of an id in the masks and a train id or 255. Empty: masks hold train "
        "ids."),
    Field("data.data_dir", "", text(),
        "Folder of prepared data sets. Empty: $TFDS_DATA_DIR, else "
        "~/tensorflow_datasets.", used_by=PREDICTION, is_resumable=True),
    _augmentation("data.train_split", "", text(),
        "Split that is trained on. Empty: the data set's own (train; VOC 2012: "
        "trainaug)."),
    Field("data.crop_size", (512, 512), SIZE,
        "(height, width) of training crops, in pixels.", used_by=EVALUATION),
    _augmentation("data.base_scale", (2048, 512), SIDES,
        "(long side, short side) that an image is fitted into at scale 1, in pixels."),
    _augmentation("data.scale_range", (0.5, 2.0), FACTORS,
        "Range of the random scale, which is uniform."),
    _augmentation("data.max_class_share", 0.75, SHARE,
        "A crop is drawn again, up to ten times, while one class covers this share "
        "of it or more."),
    Field("data.flip_probability", 0.5, SHARE, "Probability of a horizontal flip."),
    _augmentation("data.rotation_probability", 0.0, SHARE,
        "Probability of turning a crop about its centre (mmsegmentation's "
        "RandomRotate).", source="The paper does not rotate."),
    _augmentation("data.max_rotation", 10.0, number(0, 180),
        "Largest angle of it, in degrees."),
    _augmentation("data.rare_class_temperature", None, optional(POSITIVE),
        "None: each image comes once an epoch. A temperature (DAFormer: 0.01): "
        "images are drawn with a probability that favours rare classes; reads all "
        "masks at the start."),
    _augmentation("data.grey_probability", 0.0, SHARE,
        "Probability of turning an image to grey.",
        source="The paper has no grey images."),
    _augmentation("data.photometric", True, flag(),
        "Random brightness, contrast, saturation and hue (PhotoMetricDistortion)."),
    Field("data.mean", (123.675, 116.28, 103.53),
        several(number(), "three numbers, RGB", length=3),
        "RGB mean that is subtracted, in grey levels (0 to 255).",
        source="ImageNet.", used_by=PREDICTION),
    Field("data.std", (58.395, 57.12, 57.375),
        several(POSITIVE, "three numbers greater than 0, RGB", length=3),
        "RGB standard deviation that is divided by, in grey levels.",
        source="ImageNet.", used_by=PREDICTION),
    Field("data.num_workers", 4, whole(0, 1024),
        "Worker processes of the input pipeline on each host. 0: threads of the main "
        "process.", is_resumable=True),
    Field("data.num_threads", 4, whole(1, 1024),
        "Reading threads of each worker, or of the main process.",
        used_by=EVALUATION, is_resumable=True, changes_numbers=False),
    Field("data.prefetch_batches", 4, whole(1, 1024),
        "Batches that each worker prepares ahead.", is_resumable=True),
    Field("data.stall_seconds", 120.0, POSITIVE,
        "Seconds without a batch after which a warning is logged.", is_resumable=True),
)
# fmt: on
