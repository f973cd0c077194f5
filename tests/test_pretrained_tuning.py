"""A published model is read, trained with checkpoints, resumed, written back, and read by those who published it."""

import re
from pathlib import Path

import pytest
import torch
import transformers

from geminiq.data.pretrained_tokenizer import PretrainedTokenizer, load_tokenizer
from geminiq.generation.generate import generate_text
from geminiq.models.pretrained import load_pretrained, save_pretrained
from geminiq.training.lora import add_lora, merge_lora
from geminiq.training.trainer import make_trainer, resume_trainer
from geminiq.utils.checkpointing import load_checkpoint, save_checkpoint
from geminiq.utils.config import load_config, make_config
from geminiq.utils.device import UserError
from helpers import GPT2, GREEDY, LETTERS, SHAPE, Case, reference, relative
from test_pretrained_tokenizer import FAMILIES as TOKENIZERS

SIZES = {"vocab_size": 400, "max_position_embeddings": 48}   # more tokens than the tokenizers know, as many models have
FOUR = {"gpt2": (Case("GPT2", "", GPT2 | {"vocab_size": 400}), "gpt2"), "llama": (Case("Llama", "", SHAPE | SIZES), "llama2"),
        "qwen3": (Case("Qwen3", "", SHAPE | SIZES | {"head_dim": 8}), "qwen"),
        "gemma2": (Case("Gemma2", "", SHAPE | SIZES | {"head_dim": 8, "sliding_window": 5}), "gemma")}


def write(family: str, folder: Path) -> None:
    "A tiny published model with a tokenizer of its family's kind."
    case, tokenizer = FOUR[family]
    theirs = reference(case)
    with torch.no_grad():
        for p in theirs.parameters():
            p.mul_(0.3)
    theirs.float().save_pretrained(folder)
    TOKENIZERS[tokenizer](folder)


@pytest.mark.parametrize("family", FOUR)
def test_a_published_model_is_tuned_and_given_back(family: str, tmp_path: Path) -> None:
    write(family, tmp_path / "published")
    model, tokenizer, _ = load_pretrained(tmp_path / "published")
    assert isinstance(tokenizer, PretrainedTokenizer) and not model.training
    (tmp_path / "text.txt").write_text(LETTERS)
    config = make_config({
        "model": model.config.model_dump(),
        "training": {"max_steps": 4, "batch_size": 4, "warmup_steps": 0, "save_every": 2, "use_amp": False, "device": "cpu"},
        "data": {"train_path": str(tmp_path / "text.txt"), "tokenizer_type": "pretrained", "seq_length": 16,
                 "tokenizer_path": str(tmp_path / "published")}})
    before = model.embedding.weight.detach().clone()
    trained = make_trainer(config, tmp_path / "run", progress=False, model=model)
    trained.train()
    assert not torch.equal(model.embedding.weight, before)
    again = load_pretrained(tmp_path / "published").model
    settings = config.training.model_copy(update={"max_steps": 2})
    make_trainer(config.model_copy(update={"training": settings}), tmp_path / "half", progress=False, model=again).train()
    longer = load_config(tmp_path / "half" / "step-000002" / "config.yaml", ["training.max_steps=4"])
    resumed = resume_trainer(tmp_path / "half", longer, progress=False)
    resumed.train()

    kept = load_checkpoint(tmp_path / "half")
    assert kept.tokenizer.files == tokenizer.files and kept.tokenizer.stop_ids == tokenizer.stop_ids
    folder = save_pretrained(tmp_path / "tuned", kept.model, family, kept.tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    words = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = torch.tensor([tokenizer.encode("Ada writes to Grace")])
    assert words("Ada writes to Grace", add_special_tokens=False)["input_ids"] == tokens[0].tolist()
    with torch.no_grad():
        assert relative(kept.model.eval()(tokens), theirs(tokens).logits) < 1e-5
    written = generate_text(kept.model, kept.tokenizer, "Ada", max_tokens=5, sampling=GREEDY)
    assert written == generate_text(*load_pretrained(folder)[:2], "Ada", max_tokens=5, sampling=GREEDY)


def test_lora_is_folded_in_or_refused(tmp_path: Path) -> None:
    write("llama", tmp_path / "published")
    model, tokenizer, _ = load_pretrained(tmp_path / "published")
    add_lora(model, rank=2, alpha=4)
    with pytest.raises(UserError, match=r"the format llama has no .*fold it in first, by merge_lora") as caught:
        save_pretrained(tmp_path / "tuned", model)
    assert "\n" not in str(caught.value) and not (tmp_path / "tuned").exists()
    merge_lora(model)
    assert load_pretrained(save_pretrained(tmp_path / "tuned", model, tokenizer=tokenizer)).model.config == model.config


def test_a_published_tokenizer_alone(tmp_path: Path) -> None:
    "It is kept with what it was told elsewhere, found by a file of its folder too, and never learned."
    write("qwen3", tmp_path / "published")
    (tmp_path / "published" / "config.json").write_text('{"eos_token_id": [3, 4], "bos_token_id": 5}')
    (tmp_path / "published" / "generation_config.json").write_text('{"eos_token_id": [3, 4], "temperature": 0.7}')
    tokenizer = load_tokenizer(tmp_path / "published")
    assert isinstance(tokenizer, PretrainedTokenizer)
    tokenizer.save(tmp_path / "kept" / "tokenizer.json")
    for place in (tmp_path / "kept", tmp_path / "kept" / "tokenizer.model"):
        back = PretrainedTokenizer.load(place)
        assert (back.stop_ids, back.bos_id, back.pad_id) == (tokenizer.stop_ids, tokenizer.bos_id, tokenizer.pad_id)
    assert "0.7" in (tmp_path / "kept" / "generation_config.json").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "published"]
    with pytest.raises(UserError, match=re.escape("read, not learned: set data.tokenizer_path")):
        PretrainedTokenizer.train([], 9)
    config = make_config({"data": {"tokenizer_type": "pretrained"}})
    with pytest.raises(UserError, match="keeps a PretrainedTokenizer, not a dict"):
        save_checkpoint(tmp_path / "step", None, config, {})
