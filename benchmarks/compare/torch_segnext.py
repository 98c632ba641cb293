"""SegNeXt (MSCAN encoder, light Hamburger head) in plain PyTorch, to compare with.

Written from the architecture, with the parameter names of the official state_dict, so
that official weights load with ``load_state_dict(strict=True)``. Needs torch alone. In
float64 it equals the numbers of the official code in tests/goldens to 1e-13
(tests/models/test_parity.py). `python -m benchmarks.compare` measures it.

    network = segnext("tiny", num_classes=150).eval()
    logits = network(torch.randn(1, 3, 512, 512))  # at 1/8; predict: at full size
"""

import torch
import torch.nn.functional as F
from torch import nn

# Channels and blocks of each stage, MLP ratios, drop path rate, head channels, rank.
SPECS = {
    "tiny": ((32, 64, 160, 256), (3, 3, 5, 2), (8, 8, 4, 4), 0.1, 256, 16),
    "small": ((64, 128, 320, 512), (2, 2, 4, 2), (8, 8, 4, 4), 0.1, 256, 16),
    "base": ((64, 128, 320, 512), (3, 3, 12, 3), (8, 8, 4, 4), 0.1, 512, 64),
    "large": ((64, 128, 320, 512), (3, 5, 27, 3), (8, 8, 4, 4), 0.3, 1024, 64),
}


def depthwise(channels: int, height: int, width: int) -> nn.Conv2d:
    """Return a depthwise convolution that keeps the size."""
    padding = (height // 2, width // 2)
    return nn.Conv2d(
        channels, channels, (height, width), padding=padding, groups=channels
    )


class StripAttention(nn.Module):
    """5x5 depthwise, then three pairs of strips, summed, mixed, times the input."""

    def __init__(self, channels: int):
        """Make the convolutions."""
        super().__init__()
        self.conv0 = depthwise(channels, 5, 5)
        for i, length in enumerate((7, 11, 21)):
            setattr(self, f"conv{i}_1", depthwise(channels, 1, length))
            setattr(self, f"conv{i}_2", depthwise(channels, length, 1))
        self.conv3 = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        """Return the gated maps."""
        a = self.conv0(x)
        s = a
        for i in range(3):
            row, column = (self.get_submodule(f"conv{i}_{half}") for half in (1, 2))
            s = s + column(row(a))
        return self.conv3(s) * x


class GatedAttention(nn.Module):
    """The attention between two pointwise convolutions, and the way around it."""

    def __init__(self, channels: int):
        """Make the parts."""
        super().__init__()
        self.proj_1 = nn.Conv2d(channels, channels, 1)
        self.spatial_gating_unit = StripAttention(channels)
        self.proj_2 = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        """Return maps of the same shape."""
        return x + self.proj_2(self.spatial_gating_unit(F.gelu(self.proj_1(x))))


class Depthwise3x3(nn.Module):
    """A module of one convolution, for its name in the state_dict."""

    def __init__(self, channels: int):
        """Make the convolution."""
        super().__init__()
        self.dwconv = depthwise(channels, 3, 3)

    def forward(self, x):
        """Return maps of the same shape."""
        return self.dwconv(x)


class ConvMlp(nn.Module):
    """Pointwise, depthwise 3x3, GELU, pointwise."""

    def __init__(self, channels: int, hidden: int):
        """Make the parts."""
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.dwconv = Depthwise3x3(hidden)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x):
        """Return maps of the same shape."""
        return self.fc2(F.gelu(self.dwconv(self.fc1(x))))


class Block(nn.Module):
    """Attention and MLP, each with BatchNorm, layer scale and drop path."""

    def __init__(self, channels: int, ratio: int, drop_path: float):
        """Make the parts."""
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.attn = GatedAttention(channels)
        self.norm2 = nn.BatchNorm2d(channels)
        self.mlp = ConvMlp(channels, int(channels * ratio))
        self.layer_scale_1 = nn.Parameter(torch.full((channels,), 1e-2))
        self.layer_scale_2 = nn.Parameter(torch.full((channels,), 1e-2))
        self.drop_path = drop_path

    def _path(self, y):
        if self.drop_path == 0.0 or not self.training:
            return y
        keep = 1.0 - self.drop_path
        draws = torch.rand(y.shape[0], 1, 1, 1, dtype=y.dtype, device=y.device)
        return y / keep * (keep + draws).floor()

    def forward(self, x):
        """Return maps of the same shape."""
        scale_1 = self.layer_scale_1[:, None, None]
        scale_2 = self.layer_scale_2[:, None, None]
        x = x + self._path(scale_1 * self.attn(self.norm1(x)))
        return x + self._path(scale_2 * self.mlp(self.norm2(x)))


class Stem(nn.Module):
    """Images to maps at a quarter of their size."""

    def __init__(self, channels: int):
        """Make the parts."""
        super().__init__()
        self.proj = nn.Sequential(
            nn.Conv2d(3, channels // 2, 3, 2, 1),
            nn.BatchNorm2d(channels // 2),
            nn.GELU(),
            nn.Conv2d(channels // 2, channels, 3, 2, 1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x):
        """Return the maps."""
        return self.proj(x)


class Down(nn.Module):
    """Maps to maps at half their size."""

    def __init__(self, channels_in: int, channels: int):
        """Make the parts."""
        super().__init__()
        self.proj = nn.Conv2d(channels_in, channels, 3, 2, 1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        """Return the maps."""
        return self.norm(self.proj(x))


class MSCAN(nn.Module):
    """The encoder: maps at 1/4, 1/8, 1/16 and 1/32."""

    def __init__(self, dims, depths, ratios, drop_path: float):
        """Make four stages; drop path grows from 0 to ``drop_path``."""
        super().__init__()
        rates = torch.linspace(0, drop_path, sum(depths)).tolist()
        stages = zip(dims, depths, ratios, strict=True)
        for i, (channels, depth, ratio) in enumerate(stages, 1):
            down = Stem(channels) if i == 1 else Down(dims[i - 2], channels)
            blocks = [Block(channels, ratio, rates.pop(0)) for _ in range(depth)]
            setattr(self, f"patch_embed{i}", down)
            setattr(self, f"block{i}", nn.ModuleList(blocks))
            setattr(self, f"norm{i}", nn.LayerNorm(channels))

    def forward(self, x):
        """Return the maps of the four stages."""
        outputs = []
        for i in range(1, 5):
            x = getattr(self, f"patch_embed{i}")(x)
            for block in getattr(self, f"block{i}"):
                x = block(x)
            norm = getattr(self, f"norm{i}")
            x = norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            outputs.append(x)
        return outputs


class ConvGN(nn.Module):
    """A pointwise convolution without bias, GroupNorm of 32 groups, ReLU if asked."""

    def __init__(self, channels_in: int, channels: int, has_relu: bool):
        """Make the parts."""
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.gn = nn.GroupNorm(32, channels)
        self.has_relu = has_relu

    def forward(self, x):
        """Return the maps."""
        x = self.gn(self.conv(x))
        return F.relu(x) if self.has_relu else x


class Pointwise(nn.Module):
    """A module of one convolution, for its name in the state_dict."""

    def __init__(self, channels: int):
        """Make the convolution."""
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        """Return maps of the same shape."""
        return self.conv(x)


def nmf(x, bases, num_steps: int, epsilon: float = 1e-6):
    """Return the reconstruction of x (B, D, N) >= 0 from bases (B, D, R)."""
    xt = x.transpose(1, 2)
    coefficients = torch.softmax(torch.bmm(xt, bases), dim=-1)

    def update(coefficients, bases):
        numerator = coefficients * torch.bmm(xt, bases)
        gram = torch.bmm(bases.transpose(1, 2), bases)
        return numerator / (torch.bmm(coefficients, gram) + epsilon)

    for _ in range(num_steps):
        coefficients = update(coefficients, bases)
        numerator = bases * torch.bmm(x, coefficients)
        gram = torch.bmm(coefficients.transpose(1, 2), coefficients)
        bases = numerator / (torch.bmm(bases, gram) + epsilon)
    coefficients = update(coefficients, bases)
    return torch.bmm(bases, coefficients.transpose(1, 2))


class Hamburger(nn.Module):
    """The NMF between two pointwise convolutions, and the way around it.

    ``bases``: its starting bases (B, D, R). None draws them as the official code does:
    uniform in [0, 1), of unit length over D, anew in every call, at inference too.
    """

    def __init__(self, channels: int, rank: int):
        """Make the parts."""
        super().__init__()
        self.ham_in = Pointwise(channels)
        self.ham_out = ConvGN(channels, channels, has_relu=False)
        self.rank = rank
        self.bases = None

    def forward(self, x):
        """Return maps of the same shape."""
        b, c, h, w = x.shape
        y = F.relu(self.ham_in(x))
        bases = self.bases
        if bases is None:
            draws = torch.rand(b, c, self.rank, device=x.device, dtype=torch.float32)
            bases = F.normalize(draws, dim=1)
        num_steps = 6 if self.training else 7
        y = nmf(y.reshape(b, c, h * w), bases.to(y.dtype), num_steps)
        return F.relu(x + self.ham_out(y.reshape(b, c, h, w)))


class LightHamHead(nn.Module):
    """The decoder: the last three stages to logits at 1/8."""

    def __init__(self, in_dims, channels, rank, num_classes, dropout: float = 0.1):
        """Make the parts."""
        super().__init__()
        self.squeeze = ConvGN(sum(in_dims), channels, has_relu=True)
        self.hamburger = Hamburger(channels, rank)
        self.align = ConvGN(channels, channels, has_relu=True)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, features):
        """Return logits from the maps of the four stages."""
        first, *rest = features[1:]
        x = torch.cat([first, *(resize(f, first.shape[2:]) for f in rest)], dim=1)
        return self.conv_seg(self.dropout(self.align(self.hamburger(self.squeeze(x)))))


class SegNeXt(nn.Module):
    """Encoder and decoder: normalised images (B, 3, H, W) to logits at 1/8."""

    def __init__(
        self,
        variant: str = "tiny",
        num_classes: int = 150,
        drop_path: float | None = None,
        dropout: float = 0.1,
    ):
        """Make a network of `SPECS`; ``drop_path``: other than the published rate."""
        super().__init__()
        dims, depths, ratios, rate, channels, rank = SPECS[variant]
        rate = rate if drop_path is None else drop_path
        self.backbone = MSCAN(dims, depths, ratios, rate)
        self.decode_head = LightHamHead(dims[1:], channels, rank, num_classes, dropout)

    @property
    def bases(self):
        """The starting bases of the NMF."""
        return self.decode_head.hamburger.bases

    @bases.setter
    def bases(self, bases):
        self.decode_head.hamburger.bases = bases

    def forward(self, x):
        """Return logits at 1/8."""
        return self.decode_head(self.backbone(x))

    def predict(self, x):
        """Return logits at the images' size."""
        return resize(self(x), x.shape[2:])

    def loss(self, x, labels, ignore_label: int = 255):
        """Return mmseg 0.24.1's loss: the sum over labelled pixels by ALL pixels."""
        y = self(x)
        y = y if y.dtype == torch.float64 else y.float()
        y = resize(y, labels.shape[1:])
        return F.cross_entropy(
            y, labels, ignore_index=ignore_label, reduction="none"
        ).mean()


def resize(x, size):
    """Resize bilinearly, half-pixel centres."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def segnext(variant: str = "tiny", num_classes: int = 150, **options) -> SegNeXt:
    """Return a network with PyTorch's random weights."""
    return SegNeXt(variant, num_classes, **options)
