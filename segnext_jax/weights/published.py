"""The published networks that have a name here: a table, and nothing that is fetched.

Source: the addresses and results of github.com/Visual-Attention-Network/SegNeXt and of
mmsegmentation 1.x, configs/segnext; numbers of parameters and the encoders' top-1: the
paper, tables 3 and 9. Official files have no published checksum.
"""

import dataclasses

_MMSEG = "https://download.openmmlab.com/mmsegmentation/v0.5"
_MMSEG_PAGE = "https://github.com/open-mmlab/mmsegmentation/tree/main/configs/segnext"
_OFFICIAL_PAGE = "https://github.com/Visual-Attention-Network/SegNeXt"
_LICENCE = "Apache-2.0"
# The README of the official code: "For commercial use, please contact the authors."
_OFFICIAL_LICENCE = "Apache-2.0 *"
_CITYSCAPES = (
    *("data.crop_size=1024,1024", "data.base_scale=2048,1024"),
    *("evaluation.scale=2048,1024", "evaluation.size_multiple=1"),
    *("evaluation.mode=slide", "evaluation.window=1024,1024"),
    "evaluation.stride=768,768",
)


@dataclasses.dataclass(frozen=True)
class Published:
    """A file of weights that its authors let everybody fetch.

    Attributes:
      name: What it is called here.
      url: Its address.
      page: Where its authors name it.
      score: mIoU (an encoder: top-1) that they report, in percent.
      multi_scale: mIoU at several scales with flip; None for an encoder.
      parameters: Number of parameters, in millions.
      dataset: Key of `segnext_jax.datasets.SPECS`; empty for an encoder.
      checksum: As in `segnext_jax.cli.download.download`; empty where none is known.
      settings: Fields of the configuration that differ from the base.
      licence: The licence of the file.
    """

    name: str
    url: str
    page: str
    score: float
    multi_scale: float | None
    parameters: float
    dataset: str = ""
    checksum: str = ""
    settings: tuple[str, ...] = ()
    licence: str = _LICENCE

    @property
    def file_name(self) -> str:
        """Name of the file on disk."""
        last = self.url.rsplit("/", 1)[-1]
        return last if last.endswith(".pth") else f"{self.name}.pth"

    @property
    def megabytes(self) -> int:
        """About what it takes: four bytes for each parameter."""
        return round(4 * self.parameters)


def _mmseg(name: str, path: str, **fields: object) -> Published:
    """Return a file of mmsegmentation, whose name ends in digits of its SHA-256."""
    digits = path.rsplit("-", 1)[-1].removesuffix(".pth")
    url, checksum = f"{_MMSEG}/{path}", f"sha256:{digits}"
    return Published(name, url, _MMSEG_PAGE, checksum=checksum, **fields)  # type: ignore[arg-type]  # Names of fields.


def _mmseg_ade20k(variant: str, date: str, *numbers: float) -> Published:
    model = f"segnext_mscan-{variant[0]}_1x16_512x512_adamw_160k_ade20k"
    score, multi_scale, parameters = numbers
    return _mmseg(
        f"segnext-{variant}-ade20k",
        f"segnext/{model}/{model}_{date}.pth",
        score=score,
        multi_scale=multi_scale,
        parameters=parameters,
        dataset="ade20k",
    )


def _encoder(variant: str, digits: str, top1: float, parameters: float) -> Published:
    return _mmseg(
        f"mscan-{variant}",
        f"pretrain/segnext/mscan_{variant[0]}_20230227-{digits}.pth",
        score=top1,
        multi_scale=None,
        parameters=parameters,
    )


def _official(name: str, share: str, *numbers: float) -> Published:
    score, multi_scale, parameters = numbers
    dataset = name.split("-")[2]
    return Published(
        name,
        f"https://cloud.tsinghua.edu.cn/f/{share}/?dl=1",
        _OFFICIAL_PAGE,
        score,
        multi_scale,
        parameters,
        dataset,
        settings=_CITYSCAPES if dataset == "cityscapes" else (),
        licence=_OFFICIAL_LICENCE,
    )


_ALL = (
    _mmseg_ade20k("tiny", "20230210_140244-05bd8466", 41.50, 42.59, 4.3),
    _mmseg_ade20k("small", "20230214_113014-43013668", 44.16, 45.81, 13.9),
    _mmseg_ade20k("base", "20230209_172053-b6f6c70c", 48.03, 49.68, 27.6),
    _mmseg_ade20k("large", "20230209_172055-19b14b63", 50.99, 52.10, 48.9),
    _official("segnext-tiny-ade20k-official", "5da98841b8384ba0988a", 41.4, 42.2, 4.3),
    _official(
        "segnext-small-ade20k-official", "b2d1eb94f5944d60b3d2", 44.3, 45.8, 13.9
    ),
    _official("segnext-base-ade20k-official", "1ea8000916284493810b", 48.5, 49.9, 27.6),
    _official(
        "segnext-large-ade20k-official", "d4f8e1020643414fbf7f", 51.0, 52.1, 48.9
    ),
    _official("segnext-tiny-cityscapes", "b1613af9955849bba910", 79.8, 81.4, 4.3),
    _official("segnext-small-cityscapes", "14148cf5371a4f248db1", 81.3, 82.7, 13.9),
    _official("segnext-base-cityscapes", "adb49029f66f426bb046", 82.6, 83.8, 27.6),
    _official("segnext-large-cityscapes", "b5308d092b034f81aac0", 83.2, 83.9, 48.9),
    _encoder("tiny", "119e8c9f", 75.9, 4.2),
    _encoder("small", "f33ccdf2", 81.2, 14.0),
    _encoder("base", "3ab7d230", 83.0, 26.8),
    _encoder("large", "cef260d4", 83.9, 45.2),
)
PUBLISHED = {one.name: one for one in _ALL}


def table() -> str:
    """Return all names as text, with results, size, licence and source."""
    header = ("name", "mIoU", "flip, scales", "million", "MB", "licence", "source")
    rows = [header, *(_row(one) for one in PUBLISHED.values())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    pages = (
        f"mmsegmentation: {_MMSEG_PAGE}",
        f"official: {_OFFICIAL_PAGE}",
        "* The authors ask to be contacted before a commercial use.",
    )
    return "\n".join([*lines, "", *pages])


def _row(one: Published) -> tuple[str, ...]:
    scores = (f"{one.score:.1f}", f"{one.multi_scale or 0:.1f}")
    if one.multi_scale is None:
        scores = (f"top-1 {one.score:.1f}", "-")
    size = (f"{one.parameters:.1f}", f"{one.megabytes}")
    source = "mmsegmentation" if one.page == _MMSEG_PAGE else "official"
    return (one.name, *scores, *size, one.licence, source)
