"""Pretrains the demo's three encoders: `python -m cbmf.precompute.pretrain --out DIR`.

Each sees one modality: the ViT learns what is in generated pictures, BERT and RoBERTa learn
generated captions. Results and sizes stand in docs/demo-encoders.md.
Shapes: B captions, T tokens, D width.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaTokenizer,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

from .drawing import WIDTH, changed, draw_scene, pick
from .pretrain_vision import PATCH, Heads, picture_loss, window_loss
from .scenes import captions, paraphrases

SEED = 2_025
"""Not the demo's own seed: what is measured on the demo was not seen in pretraining."""
LONGEST = 64
"""Tokens; longer texts are cut."""
_PHOTOS = ("photo", "bad photo", "good photo", "blurry photo", "black and white photo",
           "low contrast photo", "high contrast photo")  # fmt: skip

log = logging.getLogger(__name__)
app = typer.Typer(add_completion=False)


class Encoder(StrEnum):
    """What can be pretrained."""

    vit = "vit"
    bert = "bert"
    roberta = "roberta"


def pretrain_vit(folder: Path, steps: int, seed: int = SEED) -> None:
    """Pretrain the image encoder and save it.

    First it sees a window around one thing and learns what that is; then whole pictures, and
    learns all their attributes. Either way patches also learn what they lie on.

    Args:
        folder: Where to save it.
        steps: Optimizer steps of each of the two phases.
        seed: Decides the first weights and all pictures.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    config = ViTConfig(
        image_size=WIDTH, patch_size=PATCH, hidden_size=112, num_hidden_layers=4,
        num_attention_heads=4, intermediate_size=224, hidden_dropout_prob=0.0,
    )  # fmt: skip
    vit = ViTModel(config, add_pooling_layer=False)
    heads = Heads(config.hidden_size)
    modules = nn.ModuleList([vit, heads])
    _optimize(modules, vit.layers, steps, lambda: window_loss(vit, heads, rng))
    _optimize(modules, vit.layers, steps, lambda: picture_loss(vit, heads, rng))
    _save(vit, folder)
    ViTImageProcessorPil(size={"height": WIDTH, "width": WIDTH}).save_pretrained(folder)


def pretrain_bert(folder: Path, steps: int, seed: int = SEED) -> None:
    """Pretrain the BERT with a vocabulary of the captions' words (and letters), and save it."""
    texts = _corpus(seed)
    words = sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]", text)})
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys([*pieces, *".,:'-", *words]))}
    tokenizer = BertTokenizer(vocab=vocabulary, do_lower_case=True, model_max_length=LONGEST)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=128, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=256, max_position_embeddings=LONGEST, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = BertForMaskedLM(config)
    _pretrain_text(model, model.bert.encoder, tokenizer, steps, seed)
    _save(model.bert, folder)
    tokenizer.save_pretrained(folder)


def pretrain_roberta(folder: Path, steps: int, seed: int = SEED) -> None:
    """Pretrain the RoBERTa with a byte-level BPE of 600 entries, and save it."""
    trainer = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer.train_from_iterator(
        _corpus(seed), vocab_size=600, special_tokens=special, show_progress=False
    )
    learned = json.loads(trainer.to_str())["model"]
    merges: Any = [tuple(pair) for pair in learned["merges"]]  # annotated as strings there
    tokenizer = RobertaTokenizer(vocab=learned["vocab"], merges=merges, model_max_length=LONGEST)
    torch.manual_seed(seed)
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=96, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=192, max_position_embeddings=LONGEST + 2, type_vocab_size=1,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = RobertaForMaskedLM(config)
    _pretrain_text(model, model.roberta.encoder, tokenizer, steps, seed)
    _save(model.roberta, folder)
    tokenizer.save_pretrained(folder)


def _corpus(seed: int) -> list[str]:
    """Captions to make a vocabulary of."""
    rng = np.random.default_rng([seed, 1])
    return [_vary(text, rng) for _ in range(4000) for text in captions(draw_scene(rng), rng)]


def _vary(text: str, rng: np.random.Generator) -> str:
    """The caption with another sort of photo at times, as prompts for zero-shot have it."""
    if "photo" not in text:
        return text
    text = text.replace("photo", pick(rng, _PHOTOS))
    return text.replace("photo of a ", pick(rng, ("photo of a ", "photo of the ")))


def _pretrain_text(
    model: BertForMaskedLM | RobertaForMaskedLM,
    blocks: nn.Module,
    tokenizer: BertTokenizer | RobertaTokenizer,
    steps: int,
    seed: int,
) -> None:
    """Train on masked words, and to tell captions of one scene from those of others."""
    rng = np.random.default_rng([seed, 2])
    generator = torch.Generator().manual_seed(seed)
    model.train()

    def next_loss() -> Tensor:
        first, second = _caption_pairs(32, rng)
        tokens = tokenizer([*first, *second], padding=True, return_tensors="pt")
        masked, truth = _mask(tokens["input_ids"], tokenizer, generator)
        states = model.base_model(masked, tokens["attention_mask"]).last_hidden_state  # (2B, T, D)
        weight = tokens["attention_mask"].unsqueeze(2).float()
        sentences = F.normalize((states * weight).sum(dim=1) / weight.sum(dim=1), dim=1)
        left, right = sentences.chunk(2)  # (B, D) each
        logits = left @ right.T / 0.07
        partner = torch.arange(len(left))
        contrast = F.cross_entropy(logits, partner) + F.cross_entropy(logits.T, partner)
        words = (model.cls if isinstance(model, BertForMaskedLM) else model.lm_head)(states)
        return F.cross_entropy(words.flatten(0, 1), truth.flatten()) + contrast / 2

    _optimize(model, blocks, steps, next_loss)
    model.eval()
    log.info("masked-token accuracy %.3f", masked_token_accuracy(model, tokenizer, seed))


def _caption_pairs(count: int, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Two captions each of `count` scenes; every other scene is its neighbour, a little changed."""
    first, second = [], []
    scene = draw_scene(rng)
    for i in range(count):
        scene = changed(scene, 1, rng) if i % 2 else draw_scene(rng)
        if rng.random() < 0.5:
            one, other = paraphrases(scene, scene, rng)
        else:
            one, other = rng.permutation(captions(scene, rng))[:2].tolist()
        first.append(_vary(one, rng))
        second.append(_vary(other, rng))
    return first, second


def _mask(
    ids: Tensor, tokenizer: BertTokenizer | RobertaTokenizer, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The ids with a fifth of the real tokens masked, and what was there (elsewhere -100)."""
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    chosen = (torch.rand(ids.shape, generator=generator) < 0.2) & ~special
    masked = torch.where(chosen, torch.tensor(tokenizer.mask_token_id), ids)
    return masked, ids.masked_fill(~chosen, -100)


@torch.inference_mode()
def masked_token_accuracy(
    model: BertForMaskedLM | RobertaForMaskedLM,
    tokenizer: BertTokenizer | RobertaTokenizer,
    seed: int = SEED,
) -> float:
    """Share of masked tokens that the model guesses right, on captions it was not trained on."""
    texts, _ = _caption_pairs(1000, np.random.default_rng([seed, 3]))
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    masked, truth = _mask(tokens["input_ids"], tokenizer, torch.Generator().manual_seed(seed + 1))
    guess = model(masked, tokens["attention_mask"]).logits.argmax(dim=-1)
    return (guess == truth)[truth != -100].float().mean().item()


def _optimize(
    model: nn.Module, blocks: nn.Module, steps: int, next_loss: Callable[[], Tensor]
) -> None:
    """Minimise: Muon for the matrices of the transformer blocks, AdamW for everything else."""
    matrices = [p for p in blocks.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    rates = (6e-3, 2e-3)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, rates[0], weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, rates[1], weight_decay=0.05),
    ]
    schedules = [
        torch.optim.lr_scheduler.OneCycleLR(o, r, steps, pct_start=0.1, cycle_momentum=False)
        for o, r in zip(optimizers, rates, strict=True)
    ]
    for step in range(1, steps + 1):
        loss = next_loss()
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        if step % 50 == 0:
            log.info("step %d of %d: loss %.3f", step, steps, loss.item())


def _save(encoder: PreTrainedModel, folder: Path) -> None:
    """Save the weights as float16, and a configuration that has them loaded as float32."""
    encoder.half().save_pretrained(folder)
    encoder.config.dtype = "float32"
    encoder.config.save_pretrained(folder)


STEPS = {Encoder.vit: 900, Encoder.bert: 800, Encoder.roberta: 1000}


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="Folder for the encoders' folders.")],
    only: Annotated[Encoder | None, typer.Option(help="Pretrain this one alone.")] = None,
    steps: Annotated[int | None, typer.Option(min=10, help="Optimizer steps.")] = None,
) -> None:
    """Pretrain the demo's encoders on generated scenes."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    pretrain = {
        Encoder.vit: pretrain_vit, Encoder.bert: pretrain_bert, Encoder.roberta: pretrain_roberta,
    }  # fmt: skip
    for encoder in [only] if only else list(Encoder):
        started = time.process_time()
        folder = out / f"demo-{encoder}"
        pretrain[encoder](folder, steps or STEPS[encoder])
        log.info("%s: %.0f CPU seconds", folder, time.process_time() - started)


if __name__ == "__main__":
    app()
