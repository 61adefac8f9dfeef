"""Sharing a run: `Run` folders on the hub, with a model card that holds the measured tables."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import ModelHubMixin, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from ..cache.errors import RunError
from ..evaluate.results import RESULTS_FOLDER, RESULTS_NAME, read_results
from ..evaluate.tables import markdown
from ..train.aligner import CONFIG_NAME, WEIGHTS_NAME
from ..train.history import HISTORY_NAME, SUMMARY_NAME
from ..train.run import BASELINES_NAME, ENVIRONMENT_NAME, Run

SHARED = (
    CONFIG_NAME,
    WEIGHTS_NAME,
    HISTORY_NAME,
    SUMMARY_NAME,
    ENVIRONMENT_NAME,
    f"{RESULTS_FOLDER}/{RESULTS_NAME}",
    f"{BASELINES_NAME}/*/*.json*",
    f"{BASELINES_NAME}/*/*.safetensors",
)
"""What of a run's folder is pushed; the embeddings and the encoders are not."""
CARD_NAME = "README.md"
PAPER = "https://arxiv.org/abs/2403.04650"


def run_folder(run: Path | str) -> Path:
    """The folder of a run: the one that is named, or what the hub has under that name.

    Raises:
        RunError: If there is neither.
    """
    folder = Path(run)
    if folder.is_dir() or isinstance(run, Path) or str(run).count("/") != 1:
        return folder
    try:
        return Path(snapshot_download(str(run), allow_patterns=list(SHARED)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"{run}: no such folder, and not on the hub ({reason})") from error


def push_to_hub(run: Run | Path | str, repo_id: str, **options: Any) -> str:
    """Push a run to the hub, with a card of its measured tables; the address.

    Args:
        run: A run, or its folder.
        repo_id: `owner/name`; made if need be.
        options: As `huggingface_hub.ModelHubMixin.push_to_hub` takes them: `private`, `token`,
            `branch`, `create_pr`, `commit_message`.

    Raises:
        RunError: If the run is missing or damaged, or the hub refuses.
    """
    opened = run if isinstance(run, Run) else Run.load(run)
    try:
        return str(SharedRun(opened).push_to_hub(repo_id, **options))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise RunError(f"{repo_id}: cannot be pushed ({reason})") from error


class SharedRun(ModelHubMixin, library_name="cbmf"):
    """A run as huggingface_hub's mixin saves, pushes and loads it."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def _save_pretrained(self, save_directory: Path) -> None:
        for pattern in SHARED:
            for path in sorted(self.run.folder.glob(pattern)):
                target = save_directory / path.relative_to(self.run.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        (save_directory / CARD_NAME).write_text(model_card(self.run), encoding="utf-8")

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **_options: Any) -> SharedRun:
        return cls(Run.load(run_folder(model_id)))


def model_card(run: Run) -> str:
    """The card: what the model is, how to use it, what was measured, in Markdown."""
    config, encoders = run.config, run.model.encoders
    names = " and ".join(f"`{spec.name}` ({spec.modality})" for spec in encoders)
    results = read_results(run.folder / RESULTS_FOLDER)
    keys = dict.fromkeys((r.key[:3], r.key[4]) for r in results)
    tables = "\n".join(
        markdown([r for r in results if (r.key[:3], r.key[4]) == key]) for key in keys
    )
    return f"""---
library_name: cbmf
license: apache-2.0
tags:
- multimodal
- contrastive
- frozen-encoders
---

# {run.folder.name}

A fusion model that brings {names} into one space of {run.model.width} features.
The encoders stay frozen and are not part of it. Method `{config.method}`, preset `{config.preset}`,
fusion `{config.model.fusion}`, layout `{config.model.layout}`, seed {config.seed}, fitted on
`{run.dataset}` with cbmf, an implementation of [Context-Based Multimodal Fusion]({PAPER}).

```python
import cbmf

pipeline = cbmf.load_pipeline("OWNER/{run.folder.name}")
pipeline.similarity(["photo.jpg"], ["a dog on a beach", "a red car"])
```

## Measured

± is half of a 95% bootstrap interval over the test items.

{tables or "Nothing yet: `cbmf evaluate all` measures it."}
"""
