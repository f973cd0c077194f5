"""The tokenizers of others, next to the libraries that they come from, on texts nobody would think of."""

import io
import json
import sys
from pathlib import Path

import mypy.api
import pytest
import sentencepiece
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from geminiq.data.pretrained_tokenizer import _MARK, _byte_letters, _merges, load_tokenizer, save_tokenizer
from geminiq.data.tokenizer import CHAT_TOKENS, BPETokenizer, train_tokenizer
from geminiq.utils.device import UserError

LINES = ["The quick brown fox jumps over the lazy dog.", "    def f(x):\n        return x  # naïve café", "it's 12345 o'clock",
         "aaa aaaa aa a abab ababab", "x </s> <s> s> <s </ <| |> im_end", "日本語 🤖"] * 10
QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+")
LLAMA3 = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

letters = st.characters(exclude_categories=["Cs"])
fragments = st.sampled_from(["<s>", "</s>", "<unk>", "<|end|>", "<|user|>", "<0x41>", "▁", "▁▁", " ", "  ", "\n", "\n\n", "\t",
                             "a", "aa", "ab", "the", " the", "it's", "123", "é", "e\u0301", "🤖", "\x00", "\ufffd", "<think>"])
strange = st.text(letters) | st.text(" \t\n▁<|end|>ab\x00\ufffd🤖") | st.lists(fragments).map("".join)


def write(folder: Path, **files) -> Path:
    "A folder with these files; JSON from dictionaries."
    folder.mkdir(exist_ok=True, parents=True)
    for name, content in files.items():
        name = name.replace("__", ".")
        (folder / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return folder


def sentencepiece_model(**how) -> bytes:
    "A small SentencePiece model."
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(**{
        "sentence_iterator": iter(LINES), "model_writer": model, "model_type": "bpe", "vocab_size": 370, "byte_fallback": True,
        "normalization_rule_name": "identity", "remove_extra_whitespaces": False, "minloglevel": 2} | how)
    return model.getvalue()


def byte_level(folder: Path, pre_tokenizer, normalizer=None, post_processor=None, special=(), added=(), **config) -> Path:
    "A byte-level tokenizer, as GPT-2, LLaMA 3 and Qwen have one."
    model = tokenizers.Tokenizer(models.BPE(ignore_merges=post_processor is not None))
    model.pre_tokenizer, model.decoder = pre_tokenizer, decoders.ByteLevel()
    if normalizer:
        model.normalizer = normalizer
    model.train_from_iterator(LINES, trainers.BpeTrainer(
        vocab_size=400, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    model.add_special_tokens(list(special))
    model.add_tokens(list(added))
    if post_processor:
        model.post_processor = post_processor(model.token_to_id)
    return write(folder, tokenizer__json=model.to_str().encode(), tokenizer_config__json=config)


def pieces_of(model: bytes) -> tuple[dict, list]:
    "Vocabulary and merges of a SentencePiece model."
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    n = pieces.vocab_size()
    ordinary = [i for i in range(n) if not (pieces.is_control(i) or pieces.is_unknown(i) or pieces.is_byte(i))]
    return ({pieces.id_to_piece(i): i for i in range(n)}, _merges({pieces.id_to_piece(i): pieces.get_score(i) for i in ordinary}))


def added_token(token: str) -> dict:
    "A special token as older folders write it."
    return {"__type": "AddedToken", "content": token, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}


def begins_with(token: str, id: int):
    "A post-processor that puts a token before a text."
    return processors.TemplateProcessing(single=f"{token} $A", pair=f"{token} $A {token} $B", special_tokens=[(token, id)])


def gpt2(folder: Path) -> Path:
    return byte_level(folder, pre_tokenizers.ByteLevel(add_prefix_space=False), special=["<|end|>"],
                      tokenizer_class="GPT2Tokenizer", bos_token="<|end|>", eos_token="<|end|>", unk_token="<|end|>")


def llama3(folder: Path) -> Path:
    split = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                                     pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return byte_level(folder, split, special=["<|begin|>", "<|end|>", "<|user|>"], tokenizer_class="PreTrainedTokenizerFast",
                      bos_token="<|begin|>", eos_token="<|end|>",
                      post_processor=lambda to_id: processors.Sequence([
                          processors.ByteLevel(trim_offsets=True), begins_with("<|begin|>", to_id("<|begin|>"))]))


def qwen(folder: Path) -> Path:
    split = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN), "isolated"),
                                     pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    byte_level(folder, split, normalizers.NFC(), special=["<|endoftext|>", "<|user|>", "<|end|>"], added=["<think>"],
               tokenizer_class="Qwen2Tokenizer", add_bos_token=False, bos_token=None, pad_token="<|endoftext|>",
               eos_token=added_token("<|end|>"))
    ends = [load_tokenizer(folder).eos_id, load_tokenizer(folder).pad_id]
    return write(folder, generation_config__json={"eos_token_id": ends})


def llama2(folder: Path) -> Path:
    model = sentencepiece_model()
    vocabulary, pairs = pieces_of(model)
    fast = tokenizers.Tokenizer(models.BPE(vocabulary, pairs, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    fast.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    fast.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    fast.add_special_tokens([AddedToken(token, normalized=False) for token in ("<unk>", "<s>", "</s>")])
    fast.post_processor = begins_with("<s>", 1)
    return write(folder, tokenizer__json=fast.to_str().encode(), tokenizer__model=model, tokenizer_config__json={
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": added_token("<s>"), "eos_token": added_token("</s>"),
        "unk_token": added_token("<unk>"), "clean_up_tokenization_spaces": False})


def gemma(folder: Path) -> Path:
    model = sentencepiece_model(add_dummy_prefix=False, user_defined_symbols=["\n\n", "▁▁", "▁▁▁"], pad_id=0, eos_id=1, bos_id=2,
                                unk_id=3, bos_piece="<bos>", eos_piece="<eos>")
    vocabulary, pairs = pieces_of(model)
    fast = tokenizers.Tokenizer(models.BPE(vocabulary, pairs, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    fast.normalizer = normalizers.Replace(" ", "▁")
    fast.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    fast.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ("<pad>", "<eos>", "<bos>", "<unk>", "<|end|>", "<mask>")
    fast.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    fast.add_tokens([AddedToken(token, normalized=False) for token in ("\n\n", "▁▁", "▁▁▁")])
    fast.post_processor = begins_with("<bos>", 2)
    return write(folder, tokenizer__json=fast.to_str().encode(), tokenizer_config__json={
        "tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>",
        "unk_token": "<unk>"})


FAMILIES = {make.__name__: make for make in (gpt2, llama3, qwen, llama2, gemma)}


@pytest.fixture(scope="session", params=FAMILIES)
def both(request, tmp_path_factory):
    "The same folder, read by us and by transformers."
    folder = FAMILIES[request.param](tmp_path_factory.mktemp(request.param))
    return load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)


@settings(max_examples=400, deadline=None)
@given(text=strange)
def test_the_tokens_are_those_of_transformers(both, text: str):
    ours, theirs = both
    ids = ours.encode(text)
    assert ids == theirs.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert not ours._vocabulary.control_ids & set(ids)
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    control = ours.encode(text, control_tokens=True)
    assert control == theirs.encode(text, add_special_tokens=False)
    assert ours.start_ids + control == theirs.encode(text)
    assert ours.decode(control) == theirs.decode(control, skip_special_tokens=True)


@settings(max_examples=300, deadline=None)
@given(text=strange)
def test_streaming_gives_whole_characters(both, text: str):
    ours, _ = both
    pieces = list(ours.stream(ours.encode(text)))
    assert "".join(pieces) == ours.decode(ours.encode(text))
    assert all(pieces)
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 600)))
def test_any_tokens_can_be_shown(both, ids: list[int]):
    "A model may write any tokens, half characters too, and its table is often longer than the vocabulary."
    ours, _ = both
    "".join(ours.stream(ids)).encode()
    assert len(ours.pieces(ids)) == len(ids) and all(ours.pieces(ids))


def test_tokens_may_come_as_tensors(both):
    ours, _ = both
    ids = [*ours.start_ids, *ours.encode("the fox"), ours.eos_id]
    assert ours.decode(torch.tensor(ids)) == "the fox" and ours.pieces(torch.tensor(ids)) == ours.pieces(ids)


def test_the_special_tokens_are_those_of_transformers(both):
    ours, theirs = both
    assert (ours.bos_id, ours.eos_id) == (theirs.bos_token_id, theirs.eos_token_id)
    assert ours.pad_id == (theirs.pad_token_id if theirs.pad_token_id is not None else theirs.eos_token_id)
    assert ours.vocab_size == len(theirs)
    assert ours.stop_ids[0] == theirs.eos_token_id


def test_start_and_stop(tmp_path):
    assert load_tokenizer(gpt2(tmp_path / "gpt2")).start_ids == []
    three = load_tokenizer(llama3(tmp_path / "llama3"))
    assert three.start_ids == [three.bos_id] and three.stop_ids == [three.eos_id]
    qwen2 = load_tokenizer(qwen(tmp_path / "qwen"))
    assert qwen2.start_ids == [] and qwen2.bos_id is None and qwen2.stop_ids == [qwen2.eos_id, qwen2.pad_id]
    write(tmp_path / "gpt2", tokenizer_config__json={"model_max_length": 1024},
          config__json={"eos_token_id": 400, "bos_token_id": 400})
    bare = load_tokenizer(tmp_path / "gpt2")   # GPT-2's own folder says it only there
    assert (bare.bos_id, bare.eos_id, bare.pad_id, bare.stop_ids) == (400, 400, 400, [400])
    write(tmp_path / "gpt2", generation_config__json={"eos_token_id": 7, "pad_token_id": -1})   # -1: none
    assert load_tokenizer(tmp_path / "gpt2").stop_ids == [7] and load_tokenizer(tmp_path / "gpt2").pad_id == 7


def test_bytes_as_letters():
    assert set(_byte_letters()) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(_byte_letters().values()) == list(range(256))


def test_long_texts_stay_whole(tmp_path):
    "A published file often says how much of a text its training saw."
    folder = gpt2(tmp_path)
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    cut = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    fill = {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
            "pad_token": "!"}
    write(folder, tokenizer__json=content | {"truncation": cut, "padding": fill})
    for text in ("a", "the quick brown fox jumps"):
        assert load_tokenizer(folder).decode(load_tokenizer(folder).encode(text)) == text


def test_an_added_token_is_text_as_it_stands(tmp_path):
    "Its letters do not stand for bytes, even where they could."
    folder = byte_level(tmp_path, pre_tokenizers.ByteLevel(add_prefix_space=False), added=["é"])
    tokenizer = load_tokenizer(folder)
    assert tokenizer.decode(tokenizer.encode("né")) == "né" and len(tokenizer.encode("é")) == 1


# SentencePiece


MODELS = {"bpe": {}, "unigram": {"model_type": "unigram", "vocab_size": 320},
          "no space before": {"add_dummy_prefix": False}, "single digits": {"split_digits": True},
          "no bytes": {"byte_fallback": False, "vocab_size": 100, "character_coverage": 0.98}}


@pytest.fixture(scope="session", params=MODELS)
def model(request, tmp_path_factory):
    "A tokenizer.model, read by us and by SentencePiece."
    model = sentencepiece_model(**MODELS[request.param])
    folder = write(tmp_path_factory.mktemp("model"), tokenizer__model=model)
    return load_tokenizer(folder), sentencepiece.SentencePieceProcessor(model_proto=model)


@settings(max_examples=400, deadline=None)
@given(text=strange)
def test_the_tokens_are_those_of_sentencepiece(model, text: str):
    ours, theirs = model
    ids = ours.encode(text)
    assert ids == theirs.encode(text)
    if theirs.unk_id() not in ids:
        assert ours.decode(ids) == theirs.decode(ids)
    assert ours.start_ids == [theirs.bos_id()] and ours.stop_ids == [theirs.eos_id()]


@settings(max_examples=300, deadline=None)
@given(text=strange)
def test_a_json_and_a_model_of_the_same_tokenizer_agree(llama2_folders, text: str):
    as_json, as_model = llama2_folders
    assert as_json.encode(text) == as_model.encode(text)
    assert as_json.decode(as_json.encode(text)) == as_model.decode(as_model.encode(text))
    assert as_json.encode(text, control_tokens=True) == as_model.encode(text, control_tokens=True)


@pytest.fixture(scope="session")
def llama2_folders(tmp_path_factory):
    folder = llama2(tmp_path_factory.mktemp("json"))
    lone = write(tmp_path_factory.mktemp("model"), tokenizer__model=(folder / "tokenizer.model").read_bytes())
    return load_tokenizer(folder), load_tokenizer(lone)


@settings(max_examples=300, deadline=None)
@given(text=strange.filter(lambda text: not text.startswith((" ", "▁"))))
def test_llama_as_transformers_builds_it(llama_class, text: str):
    "Its class puts no space before a text that begins with one; SentencePiece, and we, do."
    ours, theirs = llama_class
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False, split_special_tokens=True)


@pytest.fixture(scope="session")
def llama_class(tmp_path_factory):
    folder = llama2(tmp_path_factory.mktemp("llama"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    write(folder, tokenizer_config__json=config | {"tokenizer_class": "LlamaTokenizer"})
    return load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)


def test_a_space_at_the_beginning_of_a_continuation_counts(both, llama2_folders):
    ours, _ = both
    for tokenizer in (ours, *llama2_folders):
        ids = tokenizer.encode("the fox")
        assert "".join(tokenizer.stream(ids)) == "the fox"
        assert "".join(tokenizer.stream(ids, continued=True)) == " " * tokenizer._vocabulary.adds_space + "the fox"


def test_tokens_added_to_a_model(tmp_path):
    model = sentencepiece_model()
    added = {"370": {"content": "<pad>", "special": True}, "372": {"content": "<think>", "special": False},
             "371": {"content": "<|end|>", "special": True}}
    write(tmp_path, tokenizer__model=model, tokenizer_config__json={
        "added_tokens_decoder": added, "pad_token": "<pad>", "eos_token": "<|end|>", "add_bos_token": False})
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.vocab_size, tokenizer.pad_id, tokenizer.stop_ids, tokenizer.start_ids) == (373, 370, [371], [])
    typed = tokenizer.encode("a <think> b <|end|>")
    assert typed.count(372) == 1 and 371 not in typed
    assert tokenizer.decode(typed) == "a <think>  b <|end|>"   # what follows a token is a text, with a space put before it
    assert tokenizer.encode("<|end|>", control_tokens=True) == [371] and tokenizer.decode([371]) == ""
    (tmp_path / "tokenizer_config.json").unlink()
    write(tmp_path, added_tokens__json={"<pad>": 370}, special_tokens_map__json={"pad_token": {"content": "<pad>"}})
    assert load_tokenizer(tmp_path).pad_id == 370 and load_tokenizer(tmp_path).encode("<pad>", control_tokens=True) == [370]


def test_a_tokenizer_that_cannot_tell_says_so(tmp_path):
    "In a unigram vocabulary the control tokens stand among the pieces."
    fast = tokenizers.Tokenizer(models.Unigram([("<unk>", 0.0), ("</s>", 0.0), ("a", -1.0), ("▁", -2.0)], unk_id=0))
    fast.pre_tokenizer, fast.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    fast.add_special_tokens(["<unk>"])
    write(tmp_path, tokenizer__json=fast.to_str().encode(), tokenizer_config__json={"eos_token": "</s>"})
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.decode(tokenizer.encode("a a")) == "a a" and tokenizer.encode("b") == [3, 0]
    with pytest.raises(UserError, match="cannot tell the letters </s>"):
        tokenizer.encode("a</s>")
    assert tokenizer.encode("</s>", control_tokens=True) == [1]


# Writing


OURS = train_tokenizer(LINES, vocab_size=400)


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    "Our tokenizer in a folder, read by transformers and by us."
    folder = tmp_path_factory.mktemp("ours")
    save_tokenizer(OURS, folder)
    return AutoTokenizer.from_pretrained(folder), load_tokenizer(folder)


@settings(max_examples=1500, deadline=None)
@given(text=strange | st.text("ab ") | st.text(" \n\t") | st.text("theqickfoxjumpsv .▁"))
def test_transformers_reads_what_we_write(written, text: str):
    theirs, again = written
    ids = OURS.encode(text)
    assert theirs.encode(text, add_special_tokens=False, split_special_tokens=True) == again.encode(text) == ids
    assert theirs.decode(ids) == theirs.decode(ids, skip_special_tokens=True) == again.decode(ids) == text
    if not any(token in text for token in ["<s>", "</s>", "<unk>", "<pad>", *CHAT_TOKENS]):
        assert theirs.encode(text) == OURS.start_ids + ids


def test_transformers_knows_our_special_tokens(written):
    theirs, again = written
    assert [theirs.pad_token_id, theirs.unk_token_id, theirs.bos_token_id, theirs.eos_token_id] == [0, 1, 2, 3]
    assert theirs.encode("<|user|>", add_special_tokens=False) == [OURS.chat_ids["<|user|>"]]
    assert set(CHAT_TOKENS) <= set(theirs.all_special_tokens) and theirs.decode([*range(8)], skip_special_tokens=True) == ""
    assert len(theirs) == again.vocab_size == OURS.vocab_size
    assert again.start_ids == OURS.start_ids and again.stop_ids == OURS.stop_ids and again.pad_id == OURS.pad_id


def test_transformers_talks_in_our_template(tmp_path):
    save_tokenizer(OURS, tmp_path, TEMPLATES["chatml"])
    ours, theirs = load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    ids = ours.apply_chat_template(TALK)
    assert ids == theirs.apply_chat_template(TALK, add_generation_prompt=True, return_dict=False)
    assert ids.count(OURS.chat_ids["<|end|>"]) == len(TALK)


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "mistral", "mixtral", "gemma", "gemma2", "qwen3"])
def test_next_to_a_model_of_any_kind(tmp_path, model_type: str):
    save_tokenizer(OURS, write(tmp_path, config__json={"model_type": model_type}))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in [*LINES[:6], " a  b▁\n"]:
        assert theirs.encode(text, add_special_tokens=False, split_special_tokens=True) == OURS.encode(text)


def test_what_is_read_is_written_unchanged(tmp_path, both):
    ours, _ = both
    save_tokenizer(ours, tmp_path / "new")
    again = load_tokenizer(tmp_path / "new")
    assert again.encode(LINES[1]) == ours.encode(LINES[1]) and again.stop_ids == ours.stop_ids
    assert {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()} == ours.files


def test_our_own_model_alone_is_our_own_tokenizer(tmp_path):
    OURS.save(tmp_path / "tokenizer.model")
    assert isinstance(load_tokenizer(tmp_path), BPETokenizer)


def test_only_our_own_models_are_converted(tmp_path):
    with pytest.raises(UserError, match="not one of train_tokenizer"):
        save_tokenizer(BPETokenizer(sentencepiece_model()), tmp_path)


# Conversations


TEMPLATES = {
    "chatml": "{% for m in messages %}{{ '<|user|>' + m['role'] + '\n' + m['content'] | trim + '<|end|>' + '\n' }}{% endfor %}"
              "{% if add_generation_prompt %}{{ '<|user|>assistant\n' }}{% endif %}",
    "llama2": "{% if messages[0].role == 'system' %}{% set system = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}"
              "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}{% for m in messages %}\n"
              "  {% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('in turn') }}{% endif %}\n"
              "  {% if m.role == 'user' %}"
              "{{ bos_token + '[INST] ' + (system if loop.first else '') + m.content.strip() + ' [/INST]' }}"
              "{% else %}{% generation %}{{ ' ' + m.content + ' ' + eos_token }}{% endgeneration %}{% endif %}{% endfor %}",
    "llama3": "{{ bos_token }}{%- for m in messages %}\n"
              "    {%- set text = '<|user|>' + m.role + '<|user|>\n\n' + m.content | trim %}\n"
              "    {{- text + '<|end|>' }}\n{%- endfor %}"
              "{%- if add_generation_prompt %}{{- '<|user|>assistant<|user|>\n\n' }}{%- endif %}",
    "gemma": "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}{% set role = 'model' %}{% else %}"
             "{% set role = m.role %}{% endif %}{{ '<|user|>' ~ role ~ '\n' ~ m.content | trim ~ '<|end|>\n' }}{% endfor %}"
             "{% if add_generation_prompt %}<|user|>model\n{% endif %}",
    "mistral": "{%- set ns = namespace(seen=0) %}{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
               "{% set ns.seen = ns.seen + 1 %}"
               "{% if tools is not none and ns.seen == 1 %}[TOOLS]{{ tools | tojson }}[/TOOLS]{% endif %}"
               "[INST]{% if m.name is defined %}{{ m.name }}: {% endif %}{{ m.content }}[/INST]"
               "{% elif m.role == 'assistant' %}{{ m.content }}{{ eos_token }}"
               "{% if loop.last %}{% break %}{% endif %}{% endif %}{% endfor %}{# a comment #}\n"}
TALK = [{"role": "user", "content": " Is 1 < 2 & \"é\" <b>?\n", "name": None}, {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Thanks"}]
TOOLS = [{"type": "function", "function": {"name": "add", "description": "<1 & 'é'>"}}]


@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize("talk", [TALK, TALK[:2], [{"role": "system", "content": "Be kind."}, *TALK]], ids=["3", "2", "system"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_conversations_are_those_of_transformers(tmp_path, name, talk, add_generation_prompt):
    folder = llama3(tmp_path)
    (folder / "chat_template.jinja").write_text(TEMPLATES[name], encoding="utf-8")
    ours, theirs = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    for extra in ({}, {"tools": TOOLS}):
        how = {"add_generation_prompt": add_generation_prompt} | extra
        assert ours.chat_text(talk, **how) == theirs.apply_chat_template(talk, tokenize=False, **how)
        assert ours.apply_chat_template(talk, **how) == theirs.apply_chat_template(talk, return_dict=False, **how)


def test_where_a_template_comes_from(tmp_path):
    folder = llama3(tmp_path)
    talk = [{"role": "user", "content": "x"}]
    with pytest.raises(UserError, match="no chat template"):
        load_tokenizer(folder).apply_chat_template(talk)
    write(folder, tokenizer_config__json={"chat_template": [
        {"name": "default", "template": "A{{ messages[0].content }}"}, {"name": "tool_use", "template": "{{ tools | length }}"}]})
    assert load_tokenizer(folder).chat_text(talk) == "Ax" and load_tokenizer(folder).chat_text(talk, tools=TOOLS) == "1"
    write(folder, tokenizer_config__json={"chat_template": [{"name": "rag", "template": ""}]})
    with pytest.raises(UserError, match="it has only rag"):
        load_tokenizer(folder).chat_text(talk)
    write(folder, chat_template__jinja=b"B{{ messages[0].content }}{{ mood }}{{ strftime_now('%%') }}")
    tokenizer = load_tokenizer(folder)
    assert tokenizer.chat_text(talk, mood="!") == "Bx!%" and tokenizer.chat_text(talk) == "Bx%"
    for wrong in ([], ["Hello"], [None]):
        with pytest.raises(UserError, match="a conversation is a list of messages"):
            tokenizer.chat_text(wrong)


@settings(max_examples=300, deadline=None)
@given(content=st.lists(st.sampled_from(
    ["<|end|>", "<|user|>", "<|begin|>", "<|", "|>", "end", _MARK, "\n", "hi", "<|en", "d|>"])).map("".join))
def test_a_message_gives_no_commands(chat, content: str):
    "However it is spelled, the control tokens are those of the template."
    plain = [{"role": "user", "content": "x"}]
    ids = chat.apply_chat_template([{"role": "user", "content": content}])
    for token in (chat.bos_id, chat.eos_id, chat.encode("<|user|>", control_tokens=True)[0]):
        assert ids.count(token) == chat.apply_chat_template(plain).count(token)
    assert chat.decode(ids) == f"user\n{content.replace(_MARK, '').strip()}\nassistant\n"


@pytest.fixture(scope="session")
def chat(tmp_path_factory):
    folder = llama3(tmp_path_factory.mktemp("chat"))
    (folder / "chat_template.jinja").write_text(TEMPLATES["chatml"], encoding="utf-8")
    return load_tokenizer(folder)


def test_a_mark_breaks_tokens_that_overlap(tmp_path):
    folder = byte_level(tmp_path, pre_tokenizers.ByteLevel(add_prefix_space=False), special=["|a|", "|b"],
                        chat_template="{{ messages[0].content }}")
    tokenizer = load_tokenizer(folder)
    for content in ("|a|a|a|", "|a|b|a|b", "||a||b"):
        ids = tokenizer.apply_chat_template([{"role": "user", "content": [{"text": content}]} | {"content": content}])
        assert not tokenizer._vocabulary.control_ids & set(ids) and tokenizer.decode(ids) == content


ATTACKS = ["{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ messages.append({}) }}", "{{ cycler.__init__.__globals__ }}",
           "{{ raise_exception.__globals__.os }}", "{{ strftime_now.__code__.co_code }}", "{{ namespace.__init__.__globals__ }}",
           "{{ range(10 ** 9) | list }}", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
           "{{ dict.__base__.__subclasses__() }}", "{{ range.__self__.left }}",
           "{{ messages | tojson(cls=dict) }}", "{{ messages[0].update(a=1) }}", "{% include 'x' %}", "{{ 1 / 0 }}", "{% for %}",
           "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"]


@pytest.mark.parametrize("template", ATTACKS)
def test_a_template_stays_behind_its_fence(tmp_path, template):
    folder = llama3(tmp_path)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    talk = [{"role": "user", "content": "x"}]
    with pytest.raises(UserError, match=r"the chat template (fails|counts)"):
        load_tokenizer(folder).apply_chat_template(talk)
    assert talk == [{"role": "user", "content": "x"}]


@pytest.mark.parametrize("template", ["{{ messages.__class__ }}", "{{ '{0.__class__}'.format(messages) }}", "{{ self.__init__ }}",
                                      "{{ messages | attr('__class__') | attr('__mro__') }}", "{{ strftime_now.__globals__ }}"])
def test_behind_the_fence_is_nothing(tmp_path, template):
    folder = llama3(tmp_path)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    assert load_tokenizer(folder).apply_chat_template([{"role": "user", "content": "x"}]) == []


# Damage


DAMAGE = [
    ({"tokenizer__json": b"{"}, "tokenizer.json is damaged"),
    ({"tokenizer__json": b"[]"}, "should hold an object, not list"),
    ({"tokenizer__json": b"{}"}, "tokenizer.json is damaged"),
    ({"tokenizer__json": b"\xff\xfe\x00"}, "tokenizer.json is text in UTF-16"),
    ({"tokenizer_config__json": b"{'a': 1}"}, "tokenizer_config.json is damaged"),
    ({"tokenizer_config__json": b""}, "tokenizer_config.json is damaged"),
    ({"special_tokens_map__json": b"nul"}, "special_tokens_map.json is damaged"),
    ({"generation_config__json": b'{"eos_token_id": 1'}, "generation_config.json is damaged"),
    ({"generation_config__json": {"eos_token_id": ["2"]}}, "eos_token_id should be a number"),
    ({"generation_config__json": {"eos_token_id": True}}, "eos_token_id should be a number"),
    ({"config__json": {"bos_token_id": 1.5}}, "bos_token_id should be a number"),
    ({"tokenizer_config__json": {"eos_token": 5}}, "eos_token should be a text, not 5"),
    ({"tokenizer_config__json": {"eos_token": {"text": "x"}}}, "eos_token should be a text"),
    ({"tokenizer_config__json": {"eos_token": "<nowhere>"}}, "the eos_token '<nowhere>' is not in the vocabulary"),
    ({"tokenizer_config__json": {"chat_template": 3}}, "chat_template should be a text"),
    ({"tokenizer_config__json": {"chat_template": [{"name": "x"}]}}, "chat_template should be a text"),
    ({"tokenizer_config__json": {"added_tokens_decoder": {"x": 1}}}, "its added tokens cannot be read"),
    ({"tokenizer_config__json": {"added_tokens_decoder": {"1": {"content": 1}}}}, "tokenizer_config.json is damaged: its added"),
    ({"added_tokens__json": {"<x>": "y"}}, "added_tokens.json is damaged"),
    ({"chat_template__jinja": b"\xff"}, "chat_template.jinja is not text in UTF-8"),
]


@pytest.mark.parametrize(("files", "message"), DAMAGE, ids=[message for _, message in DAMAGE])
def test_damage_is_one_clear_line(tmp_path, files, message):
    write(gpt2(tmp_path), **files)
    with pytest.raises(UserError, match=message) as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_tokenizer(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"neither tokenizer\.json nor tokenizer\.model"):
            load_tokenizer(folder)
    write(tmp_path, tokenizer__model=b"damaged")
    with pytest.raises(UserError, match="not a SentencePiece model"):
        load_tokenizer(tmp_path)


def test_another_kind_of_tokenizer_is_named(tmp_path):
    fast = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    fast.decoder = decoders.WordPiece()
    write(tmp_path, tokenizer__json=fast.to_str().encode())
    with pytest.raises(UserError, match="makes text of tokens by WordPiece"):
        load_tokenizer(tmp_path)


def test_without_the_extra(tmp_path, monkeypatch):
    for name in ("tokenizers", "jinja2.sandbox"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r'tokenizers: pip install "geminiq\[hub\]"'):
        load_tokenizer(write(tmp_path / "json", tokenizer__json=b"{}"))
    write(tmp_path / "model", tokenizer__model=sentencepiece_model(), tokenizer_config__json={"chat_template": "not seen before"})
    tokenizer = load_tokenizer(tmp_path / "model")   # SentencePiece needs nothing more
    assert tokenizer.decode(tokenizer.encode("the fox")) == "the fox"
    with pytest.raises(UserError, match=r'jinja2.sandbox: pip install "geminiq\[hub\]"'):
        tokenizer.apply_chat_template([{"role": "user", "content": "x"}])
    save_tokenizer(OURS, tmp_path / "ours")


@pytest.mark.slow
def test_both_tokenizers_are_tokenizers(tmp_path: Path):
    "As the type checker sees it: whatever takes a Tokenizer takes each of them."
    (tmp_path / "check.py").write_text("from geminiq.data.pretrained_tokenizer import PretrainedTokenizer\n"
                                       "from geminiq.data.tokenizer import BPETokenizer, Tokenizer\n"
                                       "ours: type[Tokenizer] = BPETokenizer\n"
                                       "theirs: type[Tokenizer] = PretrainedTokenizer\n")
    options = ["--follow-imports=silent", "--config-file=", "--cache-dir", str(tmp_path / "cache")]
    found, _, status = mypy.api.run([*options, str(tmp_path / "check.py")])
    assert status == 0, found
