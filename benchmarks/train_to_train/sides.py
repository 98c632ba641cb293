"""The two trainings that are compared: this package's and PyTorch's."""

import typing
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.compare.torch_segnext import segnext
from segnext_jax import config as config_lib
from segnext_jax.convert.weights import to_state_dict
from segnext_jax.datasets import SPECS
from segnext_jax.models.segnext import SegNeXt
from segnext_jax.ops import nmf, photometric, sharding
from segnext_jax.training import state as state_lib
from segnext_jax.training.optimizer import Optimizer
from segnext_jax.training.step import make_step, step_keys
from segnext_jax.training.tasks.segmentation_step import segmentation_batch
from segnext_jax.training.tasks.task import make_task

SPEC = SPECS["camvid"]
RECIPE = (
    *("batch_size=8", "data.crop_size=64x96", "data.base_scale=160,120"),
    *("data.scale_range=0.75,1.5", "data.photometric=false", "data.num_workers=0"),
    *("optimizer.learning_rate=2e-3", "optimizer.head_lr_multiplier=2"),
    *("optimizer.warmup_steps=30", "optimizer.max_gradient_norm=1"),
    *("evaluation.scale=160,120", "evaluation.batch_size=8"),
)
# What the exact series runs on each side; the first is the side's usual form.
FORMS = {
    "jax": ("float32", "float64"),
    "torch": ("float32", "other sums", "float64", "norms decay"),
}


class Run(NamedTuple):
    """One training.

    Attributes:
      series: ``"exact"`` or ``"drawn"``.
      side: ``"jax"`` or ``"torch"``.
      form: One of `FORMS`.
      seed: Of weights, batches and draws.
    """

    series: str
    side: str
    form: str
    seed: int

    @property
    def file(self) -> str:
        """The name of the file of its results."""
        return (
            f"{self.series}_{self.side}_{self.form.replace(' ', '_')}_{self.seed}.json"
        )

    @property
    def is_double(self) -> bool:
        """Whether it computes in float64; the mistake is told from rounding there."""
        return self.form in ("float64", "norms decay")


class Side(NamedTuple):
    """A network in training.

    Attributes:
      step: Takes images, labels and bases; returns the loss.
      logits: Takes normalised images; returns logits at 1/8.
    """

    step: Callable[[np.ndarray, np.ndarray, np.ndarray], float]
    logits: Callable[[jax.Array], jax.Array]


class Given(SegNeXt):
    """The network with bases that are given; the recipe draws them in the network."""

    bases: Any = None

    def __call__(self, images, draw=None, train=False):
        """Return logits at 1/8."""
        return super().__call__(images, self.bases if train else draw, train)


def configure(run: Run, num_steps: int) -> Any:
    """Return the configuration of a run."""
    config = config_lib.load("configs/camvid_tiny.py", RECIPE)
    config.seed, config.num_steps = run.seed, num_steps
    if run.series == "exact":
        config.model.dropout_rate = config.model.drop_path_rate = 0.0
    return config


def of_jax(run: Run, config: Any, variables: Any) -> Side:
    """Return this package's side."""
    dtype = jnp.float64 if run.is_double else jnp.float32
    model = Given.from_config(config.model, SPEC.num_classes)
    model = model.clone(dtype=dtype, param_dtype=dtype)
    optimizer = Optimizer.from_config(config)
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), variables)
    state = state_lib.create(variables, optimizer)
    # Another number of the first step, not another seed: one program for all runs.
    config = config.copy_and_resolve_references()
    config.seed = 0
    box = [state.replace(step=jnp.int32(100_000 * run.seed))]
    (draw,) = model.draws().values()

    @jax.jit
    def train_step(state: Any, batch: Any, bases: Any) -> Any:
        made = make_step(
            *(model.clone(bases=bases), optimizer),
            *(segmentation_batch(config, SPEC.ignore_label), config),
        )
        return made(state, batch)

    @jax.jit
    def apply(variables: Any, images: Any) -> Any:
        return model.apply(variables, images, draw)

    def step(images: np.ndarray, labels: np.ndarray, bases: np.ndarray) -> float:
        sizes = np.tile(np.array(images.shape[1:3], np.int32), (len(images), 1))
        batch = {"image": images, "label": labels, "size": sizes}
        box[0], metrics = train_step(box[0], batch, bases.astype(dtype))
        return float(metrics["loss"])

    return Side(step, lambda images: apply(box[0].variables(), images))


def of_torch(run: Run, config: Any, variables: Any) -> Side:
    """Return PyTorch's side: the recipe of the official code with PyTorch's parts."""
    torch.manual_seed(run.seed)
    dtype = torch.float64 if run.is_double else torch.float32
    is_other = run.form == "other sums"
    layout = torch.contiguous_format if is_other else torch.channels_last
    rates = {"dropout": config.model.dropout_rate}
    if config.model.drop_path_rate is not None:
        rates["drop_path"] = config.model.drop_path_rate
    network = segnext("tiny", SPEC.num_classes, **rates)
    state = to_state_dict(variables)
    network.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
    # PyTorch's types lack a memory format of modules.
    network = typing.cast(Any, network).to(dtype, memory_format=layout)
    optimizer, schedule = torch_optimizer(
        network, config, norms_decay=run.form == "norms decay"
    )
    mean, std = (torch.tensor(v) for v in (config.data.mean, config.data.std))
    (draw,) = SegNeXt.from_config(config.model, SPEC.num_classes).draws().values()

    def to_network(images: np.ndarray) -> torch.Tensor:
        arranged = torch.from_numpy(images).permute(0, 3, 1, 2)
        return arranged.to(dtype).contiguous(memory_format=layout)

    def step(images: np.ndarray, labels: np.ndarray, bases: np.ndarray) -> float:
        network.train()
        network.bases = torch.from_numpy(bases)
        normalized = (torch.from_numpy(images).float() - mean) / std
        loss = network.loss(
            to_network(normalized.numpy()),
            torch.from_numpy(labels).long(),
            SPEC.ignore_label,
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(
            network.parameters(), config.optimizer.max_gradient_norm
        )
        optimizer.step()
        schedule.step()
        return loss.item()

    def logits(images: jax.Array) -> jax.Array:
        network.eval()
        network.bases = torch.tensor(np.repeat(draw, len(images), axis=0))
        with torch.inference_mode():
            output = network(to_network(np.array(images)))
        return jnp.asarray(output.float().permute(0, 2, 3, 1).numpy())

    return Side(step, logits)


def torch_optimizer(
    network: torch.nn.Module, config: Any, norms_decay: bool = False
) -> tuple[Any, Any]:
    """Return AdamW with the official groups, and poly times a linear warm-up.

    Args:
      network: Its parameters bear the official names.
      config: The section ``optimizer`` and ``num_steps`` of a run.
      norms_decay: A mistake: the weights of norms decay, too.
    """
    options = config.optimizer
    groups = [
        {
            "params": [value],
            "lr": options.learning_rate
            * (options.head_lr_multiplier if "head" in name else 1),
            "weight_decay": options.weight_decay
            * (
                options.norm_decay_multiplier
                if "norm" in name and not norms_decay
                else 1
            ),
        }
        for name, value in network.named_parameters()
    ]
    betas = options.beta1, options.beta2
    optimizer = torch.optim.AdamW(groups, betas=betas, eps=options.epsilon)
    schedulers = torch.optim.lr_scheduler
    parts = [
        schedulers.PolynomialLR(optimizer, config.num_steps, power=options.power),
        schedulers.LinearLR(
            optimizer, options.warmup_ratio, total_iters=options.warmup_steps
        ),
    ]
    return optimizer, schedulers.ChainedScheduler(parts, optimizer=optimizer)


def batches(config: Any) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield images with distorted colours, labels, and bases, for each step."""
    variant = SegNeXt.from_config(config.model, SPEC.num_classes).variant
    distort = jax.jit(photometric.distort)
    mesh = sharding.make_mesh(devices=jax.local_devices()[:1])
    with make_task(config, mesh).make_loader() as loader:
        for number in range(config.num_steps):
            batch = next(loader)
            keys = step_keys(config.seed, jnp.int32(number))
            images = np.array(distort(batch["image"], keys["photometric"]), np.uint8)
            bases = nmf.draw_bases(
                *(keys["nmf"], config.batch_size),
                *(variant.head_channels, variant.rank),
            )
            yield images, batch["label"], np.array(bases)
