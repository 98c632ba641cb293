"""Configurations: files, overrides, faults."""

import pathlib
import re

import pytest

from segnext_jax import config as config_lib
from segnext_jax.config.overrides import apply, differences, flatten
from segnext_jax.models.segnext import VARIANTS


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "base.py"
    path.write_text(
        "from segnext_jax.config import base_config\n"
        "def get_config():\n"
        "    return base_config()\n"
    )
    return str(path)


def test_overrides_take_the_type_of_the_field(file):
    config = config_lib.load(
        file,
        [
            "data.crop_size=176,240",
            "data.base_scale=(480, 360)",
            "data.photometric=false",
            "optimizer.learning_rate=1e-3",
            "model.rank=8",
            "model.embed_dims=[8,16,24,32]",
            "model.dtype=bfloat16",
        ],
    )
    assert config.data.crop_size == (176, 240)
    assert config.data.base_scale == (480, 360)
    assert config.data.photometric is False
    assert config.optimizer.learning_rate == 1e-3
    assert config.model.rank == 8
    assert config.model.embed_dims == (8, 16, 24, 32)
    assert config.model.dtype == "bfloat16"


def test_all_faults_are_named_at_once(file):
    with pytest.raises(ValueError) as caught:
        config_lib.load(
            file,
            [
                "crop_size=3,3",
                "data.crop_sze=3,3",
                "model.rank=many",
                "model=tiny",
                "seed",
                "batch_size=0",
                "data.name=camvit",
                "data.photometric=1",
                "data.scale_range=2,1",
                "optimizer.warmup_steps=200000",
            ],
        )
    message = str(caught.value)
    for part in (
        "config.crop_size is not a field. Did you mean config.data.crop_size?",
        "config.data.crop_sze is not a field. Did you mean config.data.crop_size?",
        "config.model.rank must be a whole number of at least 1, or None: got 'many'",
        "config.model is a section",
        "config.seed needs a value",
        "config.batch_size must be a whole number of at least 1: got '0'",
        "got 'camvit'. Did you mean camvid?",
        "config.data.photometric must be true or false: got '1'",
        "config.data.scale_range must be two numbers",
        "config.optimizer.warmup_steps must be less than config.num_steps",
    ):
        assert part in message


def test_missing_file_names_its_neighbours(file):
    path = pathlib.Path(file).with_name("bas.py")
    with pytest.raises(
        ValueError, match=r"bas\.py does not exist\. Did you mean .*base"
    ):
        config_lib.load(str(path))


def test_misspelt_field_in_a_file_is_one_sentence(tmp_path):
    path = tmp_path / "wrong.py"
    path.write_text(
        "from segnext_jax.config import base_config\n"
        "def get_config():\n"
        "    config = base_config()\n"
        "    config.optimizer.learning_rat = 1\n"
        "    return config\n"
    )
    with pytest.raises(ValueError, match="learning_rat"):
        config_lib.load(str(path))


def test_file_without_config_is_refused(tmp_path):
    path = tmp_path / "empty.py"
    path.write_text("def get_config():\n    return 3\n")
    with pytest.raises(ValueError, match="must return a ConfigDict"):
        config_lib.load(str(path))


def test_json_round_trip_keeps_every_field(file):
    config = config_lib.load(file, ["model.rank=8", "data.crop_size=32,48"])
    assert config_lib.from_json(config_lib.to_json(config)) == config


def test_stored_configuration_of_another_version_is_refused():
    with pytest.raises(ValueError, match="config.model.colour is not a field"):
        config_lib.from_json('{"data": {}, "model": {"colour": 1}}')


def test_a_stored_decomposition_is_read_if_it_is_the_nmf():
    stored = config_lib.base_config()
    with stored.unlocked():
        stored.model.decomposition = "nmf"
    given = config_lib.from_json(config_lib.to_json(stored))
    assert given == config_lib.base_config()
    stored.model.decomposition = "vq"
    with pytest.raises(ValueError, match="decomposition is 'vq' there. Vector quantis"):
        config_lib.from_json(config_lib.to_json(stored))


def test_differences_name_both_values_and_respect_patterns(file):
    stored = config_lib.load(file)
    given = config_lib.load(file, ["log_every=7", "seed=3", "data.num_workers=1"])
    lines = differences(stored, given, ignore=config_lib.RESUMABLE_FIELDS)
    assert lines == ["config.seed is 0 there, 3 here"]


def test_each_default_is_acceptable_and_survives_text_and_json():
    config = config_lib.base_config()
    assert dict(flatten(config)).keys() == config_lib.FIELDS.keys()
    for name, field in config_lib.FIELDS.items():
        assert field.kind.accepts(field.default), name
        assert field.meaning.endswith("."), name
        text = str(field.default)
        assert field.kind.parse(text) == field.default, name
        assert not apply(config, f"{name}={text}"), name
    assert config == config_lib.base_config()


OF_NO_FIELD = ["None", "1j", "1e400", "-1e400", "nan", "10**23", str(10**23), "b'x'"]
OF_NO_FIELD += ["{}", "a", "[[[", "(" * 500, "9" * 5000, "True", "32.5,48", "-1", ""]


@pytest.mark.parametrize("text", OF_NO_FIELD)
def test_each_field_takes_or_refuses_each_text_in_a_sentence(text):
    """No value passes that its field's kind does not accept; none is a traceback."""
    for name, field in config_lib.FIELDS.items():
        config = config_lib.base_config()
        fault = apply(config, f"{name}={text}")
        value = dict(flatten(config))[name]
        assert field.kind.accepts(value), (name, value)
        if fault:
            assert fault.startswith(f"config.{name} must be "), fault
            assert len(fault) < 500
            assert value == field.default


@pytest.mark.parametrize(
    "override",
    [
        *("data.crop_size=32.5,48", "loss.class_weights=a", "evaluation.ratios=1j"),
        *("optimizer.learning_rate=1e400", f"seed={10**23}", "batch_size=None"),
        *("data.crop_size=8", "model.depths=1,2,3", "data.mean=1,2,nan", "debug=1"),
        *("data.colours=(1,2,3)", "data.id_map=1,2", "optimizer.learning_rate=inf"),
    ],
)
def test_values_of_another_type_are_refused(override):
    with pytest.raises(ValueError, match=override.split("=")[0]):
        config_lib.load(None, [override])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("config.batch_size = None\n    return config", "batch_size must be a whole"),
        ("config = config.copy_and_resolve_references()\n"
         "    with config.unlocked():\n        del config.model.rank\n"
         "    return config", "config.model.rank is missing"),
        ("raise SystemExit(0)", "it failed with SystemExit: 0"),
        ("config.optimizer.learning_rate = float('nan')\n    return config",
         "learning_rate must be a number greater than 0: got nan"),
    ],
)  # fmt: skip
def test_whatever_a_file_does_is_one_sentence(tmp_path, body, message):
    path = tmp_path / "odd.py"
    path.write_text(
        "from segnext_jax.config import base_config\n"
        f"def get_config():\n    config = base_config()\n    {body}\n"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        config_lib.load(str(path))


def test_a_run_goes_on_with_another_evaluation_and_not_with_another_training():
    fields = config_lib.FIELDS
    evaluation = {name for name in fields if name.startswith("evaluation.")}
    assert evaluation and evaluation <= config_lib.RESUMABLE_FIELDS
    trained = ("batch_size", "seed", "num_steps", "data.crop_size", "model.variant")
    assert set(trained) <= fields.keys() - config_lib.RESUMABLE_FIELDS


@pytest.mark.parametrize(
    ("override", "is_refused"),
    [
        ("optimizer.learning_rate=0", True),
        ("optimizer.learning_rate=1e-30", False),
        ("evaluation.boundary_ratio=0", True),
        ("evaluation.boundary_ratio=1", True),
        ("model.dropout_rate=1", True),
        ("model.dropout_rate=0", False),
        ("evaluation.stride=1024x1025", True),
        ("evaluation.stride=1024x1024", False),
    ],
)
def test_the_last_value_that_a_field_may_have(override, is_refused):
    if not is_refused:
        config_lib.load(None, [override])
        return
    with pytest.raises(ValueError, match=f"config.{override.split('=')[0]} must"):
        config_lib.load(None, [override])


def test_a_folder_needs_its_name_and_fields_of_folders_need_a_folder(file, tmp_path):
    with pytest.raises(ValueError, match="config.data.folder must name a folder"):
        config_lib.load(file, ["data.name=folder"])
    with pytest.raises(ValueError) as caught:
        config_lib.load(file, ["data.folder=x", "data.id_map=(1,0),(2,300)"])
    assert "config.data.folder is for sets of your own" in str(caught.value)
    assert "config.data.id_map must be pairs of an id and its train id" in str(
        caught.value
    )
    fields = [
        *("data.name=folder", "data.folder=x", "data.id_map=(1,0),(2,255)"),
        *("data.classes=('a','b')", "data.colours=(0,0,0),(1,2,3)"),
    ]
    config = config_lib.load(file, fields)
    assert config.data.id_map == ((1, 0), (2, 255))
    assert config.data.classes == ("a", "b")
    assert config_lib.from_json(config_lib.to_json(config)) == config


def test_variants_of_the_rule_are_those_of_the_network(file):
    for variant in VARIANTS:
        config_lib.load(file, [f"model.variant={variant}"])


CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
IMAGENET, SHAPES = str(CONFIGS / "imagenet_tiny.py"), str(CONFIGS / "shapes_tiny.py")


@pytest.mark.parametrize(
    ("path", "override", "message"),
    [
        (IMAGENET, "model.rank=5", "rank is for config.task='segmentation' alone"),
        (IMAGENET, "data.photometric=false", "photometric is for config.task="),
        (SHAPES, "classification.mixup_alpha=0.5", "is for config.task='classifi"),
        (SHAPES, "optimizer.cooldown_steps=5", "for config.optimizer.schedule='cos"),
        (IMAGENET, "optimizer.power=2.0", "for config.optimizer.schedule='poly' al"),
        (SHAPES, "task=detection", "task must be one of segmentation, classification"),
        (IMAGENET, "data.name=folder", 'must name a folder if data.name is "folder"'),
        (IMAGENET, "data.folder=x", 'is read if config.data.name is "folder"'),
        (IMAGENET, "classification.area_range=0.5,1.5", "shares greater than 0 and at"),
        (
            IMAGENET,
            "batch_size=192",
            "multiple of config.classification.mix_group_size",
        ),
        (IMAGENET, "batch_size=63", "even, as images are mixed in pairs: got 63 and"),
        (IMAGENET, "classification.augment_magnitude=11.0", "between 0 and 10"),
        (IMAGENET, "num_steps=18765", "6255 and 18765 and 12510 of cooldown_steps"),
    ],
)
def test_what_a_task_does_not_have_is_refused(path, override, message):
    with pytest.raises(ValueError, match=message):
        config_lib.load(path, [override])


def test_sizes_and_maps_of_ids_have_one_notation():
    size = config_lib.FIELDS["data.crop_size"].kind
    assert size.parse("176x240") == size.parse("176,240") == (176, 240)
    ids = config_lib.FIELDS["data.id_map"].kind
    assert ids.parse("7:0,8:255") == ids.parse("(7,0),(8,255)") == ((7, 0), (8, 255))
    assert ids.parse("7:0") == ((7, 0),)
    assert not ids.accepts(ids.parse("7:300"))
