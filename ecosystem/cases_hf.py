"""transformers, peft and datasets."""

from __future__ import annotations

from functools import cache
from typing import Any

import datasets
import torch
import transformers
from peft import LoraConfig, TaskType, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch.utils.data import DataLoader

from . import data
from .cases_torch import BY_STEP, classify, perceptron
from .harness import Parts, case

TINY: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
HUGGING = ("transformers",)


@cache
def tokenizer() -> Any:
    """A tokenizer of 32 words that is made here and not fetched."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(5, 32))]
    own = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=own, **{f"{name}_token": token for name, token in names.items()}
    )


def texts(*, labels: bool = False) -> list[dict[str, Any]]:
    """Sequences of different lengths, as a tokenizer gives them."""
    found: list[dict[str, Any]] = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in data.sentences()]
    return [{**item, "labels": number % 3} for number, item in enumerate(found)] if labels else found


def batched(samples: Any, collate: Any, **settings: Any) -> DataLoader[Any]:
    """A loader with a collator of the library's own."""
    return DataLoader(samples, data.BATCH, shuffle=True, collate_fn=collate, **settings)


def own_loss(model: Any, bat: Any) -> Any:
    """The loss that a model of transformers computes by itself."""
    return model(**bat).loss


def gpt2(**changed: Any) -> Any:
    """A tiny GPT-2, whose output layer is its embedding."""
    settings: dict[str, Any] = {"vocab_size": 32, "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2}
    ends = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**settings, **ends, **changed))


def causal(**settings: Any) -> DataLoader[Any]:
    """Batches for a causal language model."""
    return batched(texts(), transformers.DataCollatorForLanguageModeling(tokenizer(), mlm=False), **settings)


def adamw(model: Any) -> torch.optim.Optimizer:
    """The usual optimizer, for what is trained."""
    return torch.optim.AdamW([item for item in model.parameters() if item.requires_grad], 0.01)


@case(
    "BERT, DataCollatorWithPadding, linear schedule with warmup by step", "torch", HUGGING, by_step=True, note=BY_STEP
)
def bert() -> Parts:
    model = transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=32, num_labels=3, **TINY))
    optimizer = adamw(model)
    scheduler = transformers.get_linear_schedule_with_warmup(optimizer, 3, 12)
    loader = batched(texts(labels=True), transformers.DataCollatorWithPadding(tokenizer()))
    return Parts(model, optimizer, loader, own_loss, scheduler, by_step=True)


@case("BERT, masked by a collator that draws, cosine schedule by epoch, validation", "torch", HUGGING)
def masked() -> Parts:
    model = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=32, **TINY))
    optimizer = adamw(model)
    collate = transformers.DataCollatorForLanguageModeling(tokenizer(), mlm_probability=0.4)
    samples: Any = texts()
    val_loader: DataLoader[Any] = DataLoader(samples, data.BATCH, collate_fn=collate)
    scheduler = transformers.get_cosine_schedule_with_warmup(optimizer, 1, 3)
    return Parts(model, optimizer, batched(texts(), collate), own_loss, scheduler, val_loader=val_loader)


@case("GPT-2 with tied weights, the collator in two workers", "torch", HUGGING)
def generative() -> Parts:
    model = gpt2()
    return Parts(model, adamw(model), causal(num_workers=2), own_loss)


@case("GPT-2 in two processes", "torch", HUGGING, processes=2)
def generative_together() -> Parts:
    model = gpt2(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    return Parts(model, adamw(model), causal(), own_loss)


@case(
    "Llama, gradient checkpointing, bfloat16, accumulation, clipping",
    "torch",
    HUGGING,
    settings={"mixed_precision": "bf16", "accumulate_steps": 2, "clip_grad_norm": 1.0},
)
def llama() -> Parts:
    settings = transformers.LlamaConfig(vocab_size=32, num_key_value_heads=1, max_position_embeddings=16, **TINY)
    model = transformers.LlamaForCausalLM(settings)
    model.gradient_checkpointing_enable()
    return Parts(model, adamw(model), causal(), own_loss)


@case(
    "T5, DataCollatorForSeq2Seq, the library's Adafactor and its schedule", "torch", HUGGING, by_step=True, note=BY_STEP
)
def seq2seq() -> Parts:
    from transformers.optimization import Adafactor, AdafactorSchedule

    sizes: dict[str, Any] = {"vocab_size": 32, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, decoder_start_token_id=0))
    samples = [{**item, "labels": item["input_ids"][::-1]} for item in texts()]
    optimizer = Adafactor(model.parameters(), relative_step=True, warmup_init=True)
    scheduler = AdafactorSchedule(optimizer)
    loader = batched(samples, transformers.DataCollatorForSeq2Seq(tokenizer()))
    return Parts(model, optimizer, loader, own_loss, scheduler, by_step=True)


@case("ViT, images in a dict", "torch", HUGGING)
def vit() -> Parts:
    settings = transformers.ViTConfig(image_size=16, patch_size=8, num_labels=3, **TINY)
    model = transformers.ViTForImageClassification(settings)
    x, y = data.images(16)
    samples = [
        {"pixel_values": torch.from_numpy(image), "labels": int(label)} for image, label in zip(x, y, strict=True)
    ]
    return Parts(model, adamw(model), batched(samples, transformers.default_data_collator), own_loss)


def _lora(base: Any, **changed: Any) -> Any:
    settings = LoraConfig(task_type=TaskType.CAUSAL_LM, r=2, target_modules=["c_attn"], fan_in_fan_out=True, **changed)
    return get_peft_model(base, settings)


@case("LoRA of GPT-2", "torch", ("peft", "transformers"))
def lora() -> Parts:
    model = _lora(gpt2(), lora_dropout=0.1)
    return Parts(model, adamw(model), causal(), own_loss)


@case("LoRA of GPT-2 in two processes", "torch", ("peft", "transformers"), processes=2)
def lora_together() -> Parts:
    model = _lora(gpt2(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))
    return Parts(model, adamw(model), causal(), own_loss)


def _labelled() -> datasets.Dataset:
    x, y = data.vectors()
    return datasets.Dataset.from_dict({"x": x.tolist(), "y": y.tolist()}).with_format("torch")


def _of_dict(model: Any, bat: Any) -> Any:
    return classify(model, (bat["x"], bat["y"]))


@case("a data set with_format('torch')", "torch", ("datasets",))
def map_style() -> Parts:
    model = perceptron()
    loader: DataLoader[Any] = DataLoader(_labelled(), data.BATCH, shuffle=True)
    return Parts(model, adamw(model), loader, _of_dict)


@case("the same, read by two workers", "torch", ("datasets",))
def map_style_by_workers() -> Parts:
    model = perceptron()
    loader: DataLoader[Any] = DataLoader(_labelled(), data.BATCH, shuffle=True, num_workers=2)
    return Parts(model, adamw(model), loader, _of_dict)


@case("a streamed data set", "torch", ("datasets",))
def streamed() -> Parts:
    model = perceptron()
    stream = _labelled().to_iterable_dataset().map(lambda sample: {"x": sample["x"] * 2.0})
    loader: DataLoader[Any] = DataLoader(stream.with_format("torch"), data.BATCH)
    return Parts(model, adamw(model), loader, _of_dict)


@case(
    "a streamed data set that shuffles within a buffer, epoch by epoch",
    "torch",
    ("datasets",),
    note="the trainer calls its `set_epoch`",
)
def streamed_and_shuffled() -> Parts:
    model = perceptron()
    stream = _labelled().to_iterable_dataset(num_shards=2).shuffle(seed=1, buffer_size=8)
    loader: DataLoader[Any] = DataLoader(stream.with_format("torch"), data.BATCH)
    return Parts(model, adamw(model), loader, _of_dict)
