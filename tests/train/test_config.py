import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from cbmf.cache.errors import InputError, RunError
from cbmf.train.config import (
    PRESETS,
    FitConfig,
    LossConfig,
    ModelConfig,
    baseline_of,
    override,
    parse_settings,
    preset,
)
from cbmf.train.run import config_of


def test_importing_the_configuration_loads_no_torch():
    code = (
        "import sys, cbmf.train.config; sys.exit(any(m in sys.modules for m in ('torch', 'numpy')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_a_fit_loads_no_encoder_and_no_drawing():
    heavy = "('transformers', 'PIL', 'matplotlib', 'cbmf.precompute')"
    code = f"import sys, cbmf.train.fit; sys.exit(any(m in sys.modules for m in {heavy}))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_defaults_are_the_best_preset():
    assert preset("best") == FitConfig()


def test_released_preset_has_the_values_of_the_authors_code():
    config = preset("released")
    assert (config.epochs, config.batch_size, config.batch_unit) == (100, 64, "pairs")
    assert (config.lr, config.weight_decay, config.decay) == (1e-3, 1e-3, "all")
    assert (config.schedule, config.plateau_patience, config.plateau_factor) == ("plateau", 5, 0.8)
    assert (config.stop_on, config.patience, config.mixup, config.ema) == ("val_loss", 5, 0.0, 0.0)
    assert config.loss.targets == "hard"
    model = config.model
    assert (model.width, model.projection_width, model.heads, model.ffn_width) == (
        256,
        256,
        4,
        2048,
    )
    assert (model.projection_dropout, model.block_dropout, model.input_dropout) == (0.1, 0.1, 0.0)
    assert (model.norm, model.activation, model.gate, model.standardise) == (
        "post",
        "relu",
        None,
        False,
    )
    assert (model.log_scale, model.log_scale_min, model.log_scale_max) == (0.07, 0.01, 20.0)
    assert (model.projection_skip, model.projection_norm, model.zero_start) == (False, True, False)
    assert (model.token_dropout, model.class_token, config.clip) == (0.0, "among", 0.0)
    assert (model.attention_residual, model.pool, model.fusion) == (True, "mean", "add")


def test_paper_preset_differs_from_the_released_code_where_the_paper_speaks():
    paper, released = (dataclasses.asdict(preset(name)) for name in ("paper", "released"))
    differing = {key for key in paper if paper[key] != released[key]}
    assert differing == {"preset", "epochs", "loss", "model"}
    assert paper["epochs"] == 500 and paper["loss"]["targets"] == "soft"
    model = {k for k in paper["model"] if paper["model"][k] != released["model"][k]}
    scale = {"log_scale", "log_scale_min", "log_scale_max"}
    assert model == {"attention_residual", *scale}
    assert paper["model"]["log_scale"] == pytest.approx(math.log(1 / 0.07))


def test_linear_preset_is_the_baselines_recipe():
    config = preset("linear")
    assert (config.method, config.epochs, config.batch_size, config.batch_unit) == (
        "linear",
        40,
        1024,
        "images",
    )
    assert (config.captions_per_image, config.weight_decay, config.schedule) == (1, 0.1, "cosine")
    assert config.model.log_scale == pytest.approx(math.log(1 / 0.07))
    assert preset("best", method="linear") == config


def test_overrides_reach_the_model_and_the_loss():
    config = preset("paper", fusion="dot", layout="tokens", targets="hard", lr=0.5)
    assert (config.model.fusion, config.model.layout) == ("dot", "tokens")
    assert (config.loss.targets, config.lr, config.preset) == ("hard", 0.5, "paper")


def test_the_baseline_shares_encoders_seed_and_width():
    config = preset("best", left="vit", right="bert", seed=7, width=64, epochs=3)
    baseline = baseline_of(config)
    assert (baseline.left, baseline.right, baseline.seed) == ("vit", "bert", 7)
    assert baseline.model.width == 64 and baseline.method == "linear" and baseline.epochs == 40


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 30, "heads": 4},
        {"fusion": "sum"},
        {"layout": "sequence"},
        {"block_dropout": 1.0},
        {"input_noise": -0.1},
        {"log_scale": 30.0},
        {"targets": "medium"},
        {"targets": "soft", "label_smoothing": 0.1},
        {"epochs": 0},
        {"batch_size": 1},
        {"lr": 0.0},
        {"lr": math.nan},
        {"patience": 0},
        {"ema": 1.0},
        {"seed": -1},
        {"mixup": 1.0, "layout": "tokens"},
        {"model": ModelConfig()},
        {"learning_rate": 1e-3},
    ],
    ids=str,
)
def test_values_out_of_range_and_unknown_options_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        preset("released", **wrong)


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="best, paper, released, linear"):
        preset("good")


def test_the_best_preset_depends_on_the_layout():
    pooled, tokens = preset("best"), preset("best", layout="tokens")
    assert pooled.mixup and not tokens.mixup and tokens.model.token_dropout
    assert preset("best", layout="tokens", epochs=7).epochs == 7


def test_settings_are_read_as_what_their_fields_hold():
    settings = ["lr=1e-2", "epochs=7", "standardise=False", "patience=none", "gate=0.5", "left=vit"]
    assert parse_settings(settings) == {
        "lr": 0.01,
        "epochs": 7,
        "standardise": False,
        "patience": None,
        "gate": 0.5,
        "left": "vit",
    }


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("lr", "NAME=VALUE"),
        ("speed=3", "NAME=VALUE"),
        ("model=3", "NAME=VALUE"),
        ("lr=fast", "lr must be a number"),
        ("epochs=1.5", "epochs must be a whole number"),
        ("patience=x", "a whole number, or none"),
        ("standardise=1", "true or false"),
        ("epochs=none", "a whole number"),
    ],
)
def test_settings_that_cannot_be_read_are_one_line(setting, words):
    with pytest.raises(InputError, match=words):
        parse_settings([setting])


@pytest.mark.parametrize("name", PRESETS)
def test_configurations_survive_json(name):
    config = override(preset(name), {"left": "vit", "label_smoothing": 0.0})
    fit = dataclasses.asdict(config)
    model = fit.pop("model")
    card = json.loads(json.dumps({"fit": fit, "model": model, "dataset": "x"}))
    assert config_of(card, Path("run")) == config


def test_a_configuration_of_another_version_is_one_line():
    fit = dataclasses.asdict(FitConfig()) | {"loss": dataclasses.asdict(LossConfig())}
    model = fit.pop("model") | {"layers": 2}
    with pytest.raises(RunError, match=r"config\.json.*layers"):
        config_of({"fit": fit, "model": model, "dataset": "x"}, Path("run"))


def test_the_documentation_names_every_option_with_its_default():
    page = (Path(__file__).parents[2] / "docs" / "method.md").read_text()
    for part in (FitConfig(), FitConfig().model, FitConfig().loss):
        for option in dataclasses.fields(part):
            if option.name in ("model", "loss"):
                continue
            default = getattr(part, option.name)
            shown = {"log_scale": "CLIP_LOG_SCALE", "log_scale_max": "math.log(100)"}
            expected = f"| `{option.name}` | {shown.get(option.name, repr(default))} |"
            assert expected in page, expected
