"""Right solutions of the exercises on attention and on tokens, in other styles than the museum's: none may be refused."""

import codecs
import math
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import reduce
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

RIGHT: list[tuple[str, Callable]] = []


def right(exercise: str) -> Callable:
    "A decorator: this solution is right."
    def enter(solution: Callable) -> Callable:
        RIGHT.append((exercise, solution))
        return solution
    return enter


# ---- softmax

right("softmax")(lambda x: torch.softmax(x, -1))
right("softmax")(lambda scores: F.softmax(scores, dim=scores.ndim - 1))
right("softmax")(nn.Softmax(dim=-1))
right("softmax")(lambda x: torch.log_softmax(x, dim=-1).exp())


@right("softmax")
def softmax_subtract_max(x):
    x = x - x.max(dim=-1, keepdim=True)[0]
    return torch.exp(x) / torch.exp(x).sum(dim=-1, keepdim=True)


@right("softmax")
def softmax_in_double(x):
    wide = x.double()
    powers = (wide - wide.amax(-1, keepdim=True)).exp()
    return (powers / powers.sum(-1)[..., None]).to(x.dtype)


@right("softmax")
def softmax_last_first(x):
    turned = x.movedim(-1, 0)
    powers = torch.exp(turned - turned.max(0).values)
    return (powers / powers.sum(0)).movedim(0, -1)


@right("softmax")
def softmax_of_a_table(x):
    table = x.reshape(-1, x.shape[-1])
    rows = [torch.exp(row - torch.max(row)) for row in table]
    return torch.stack([row / torch.sum(row) for row in rows]).reshape(x.shape)


# ---- attention

@right("attention")
def attention_bmm(query, key, value, mask=None):
    B, H, T, E = query.shape
    S = key.size(2)
    scores = torch.bmm(query.reshape(B * H, T, E), key.reshape(B * H, S, E).transpose(1, 2)) / E ** 0.5
    if mask is not None:
        scores = scores + torch.zeros(T, S).masked_fill(~mask, -1e9)
    weights = scores.softmax(-1)
    if mask is not None:
        weights = weights * mask
    return torch.bmm(weights, value.reshape(B * H, S, E)).reshape(B, H, T, E)


@right("attention")
def attention_scaled_query(query, key, value, mask=None):
    scores = (query * query.size(-1) ** -0.5).matmul(key.transpose(-1, -2))
    if mask is None:
        return F.softmax(scores, -1).matmul(value)
    scores = scores.masked_fill(mask.logical_not(), float("-inf"))
    return torch.nan_to_num(F.softmax(scores, -1)).matmul(value)


@right("attention")
def attention_exponentials(query, key, value, mask=None):
    scores = torch.matmul(query, key.permute(0, 1, 3, 2)) / math.sqrt(key.shape[-1])
    powers = torch.exp(scores - scores.max(-1, keepdim=True).values)
    if mask is not None:
        hidden = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        powers = torch.exp(hidden - hidden.max(-1, keepdim=True).values) * mask
    total = powers.sum(-1, keepdim=True)
    return powers @ value / torch.where(total == 0, torch.ones_like(total), total)


@right("attention")
def attention_head_by_head(query, key, value, mask=None):
    heads = []
    for h in range(query.shape[1]):
        scores = query[:, h] @ key[:, h].mT / query.shape[-1] ** 0.5
        if mask is not None:
            scores = torch.where(mask, scores, torch.tensor(-torch.inf))
        weights = torch.softmax(scores, -1)
        heads.append(torch.where(weights.isnan(), 0.0, weights) @ value[:, h])
    return torch.stack(heads, 1)


@right("attention")
def attention_query_by_query(query, key, value, mask=None):
    out = torch.zeros_like(query)
    for t in range(query.shape[2]):
        seen = slice(None) if mask is None else mask[t]
        if mask is not None and not seen.any():
            continue
        scores = torch.einsum("bhe,bhse->bhs", query[:, :, t], key[:, :, seen]) / query.shape[3] ** 0.5
        out[:, :, t] = torch.einsum("bhs,bhse->bhe", scores.softmax(-1), value[:, :, seen])
    return out


# ---- masks

right("causal_mask")(lambda n_queries, n_keys: ~torch.ones(n_queries, n_keys, dtype=torch.bool).triu(n_keys - n_queries + 1))
right("causal_mask")(lambda n_queries, n_keys: torch.tril(torch.ones(n_queries, n_keys), n_keys - n_queries) == 1)
right("causal_mask")(lambda n_queries, n_keys: torch.ones(n_keys, n_keys).cumsum(0).ge(torch.arange(1, n_keys + 1))[-n_queries:])


@right("causal_mask")
def causal_filled(n_queries, n_keys):
    mask = torch.full((n_queries, n_keys), False)
    for t in range(n_queries):
        mask[t, :n_keys - n_queries + t + 1] = True
    return mask


@right("causal_mask")
def causal_meshgrid(n_queries, n_keys):
    rows, columns = torch.meshgrid(torch.arange(n_queries), torch.arange(n_keys), indexing="ij")
    return columns - (n_keys - n_queries) <= rows


right("document_mask")(lambda documents: documents.eq(documents[:, None]).tril())
right("document_mask")(lambda d: torch.tensor([[d[s] == d[t] and s <= t for s in range(len(d))] for t in range(len(d))]))


@right("document_mask")
def documents_as_blocks(documents):
    lengths = torch.unique_consecutive(documents, return_counts=True)[1].tolist()
    return torch.block_diag(*(torch.ones(n, n).tril() for n in lengths)).bool()


@right("document_mask")
def documents_by_product(documents):
    one_hot = (documents[:, None] == documents.unique()).float()
    return (one_hot @ one_hot.T > 0) & (torch.arange(len(documents))[:, None] >= torch.arange(len(documents)))


right("prefix_mask")(lambda n_prefix, n_positions: torch.tensor(
    [[s <= t or s < n_prefix for s in range(n_positions)] for t in range(n_positions)]))


@right("prefix_mask")
def prefix_by_or(n_prefix, n_positions):
    causal = torch.tril(torch.ones(n_positions, n_positions)).bool()
    return torch.logical_or(causal, (torch.arange(n_positions) < n_prefix).expand(n_positions, n_positions))


@right("prefix_mask")
def prefix_by_later_beginning(n_prefix, n_positions):
    last_seen = torch.arange(n_positions).clamp(min=n_prefix - 1)
    return torch.arange(n_positions)[None] <= last_seen[:, None]


@right("prefix_mask")
def prefix_by_blocks(n_prefix, n_positions):
    mask = torch.zeros(n_positions, n_positions, dtype=torch.bool)
    mask[:, :n_prefix] = True
    for t in range(n_prefix, n_positions):
        mask[t, n_prefix:t + 1] = True
    return mask


# ---- many heads

@right("multi_head")
class OneLinearForAll(nn.Module):
    def __init__(self, d_model, n_heads, dropout):
        super().__init__()
        self.h, self.p = n_heads, dropout
        self.query, self.key, self.value, self.output = (nn.Linear(d_model, d_model) for _ in range(4))

    def forward(self, x, mask=None):
        b, t, d = x.size()
        q, k, v = (f(x).reshape(b, t, self.h, d // self.h).permute(0, 2, 1, 3) for f in (self.query, self.key, self.value))
        scores = q @ k.mT / (d // self.h) ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~(mask if mask.dim() == 2 else mask.unsqueeze(1)), -1e30)
        weights = F.dropout(scores.softmax(-1), self.p, self.training)
        return self.output((weights @ v).permute(0, 2, 1, 3).reshape(b, t, d))


@right("multi_head")
class HeadsInOneBatch(nn.Module):
    def __init__(self, d_model: int, n_heads: int, dropout: float):
        super().__init__()
        self.H = n_heads
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.output = nn.Linear(d_model, d_model)
        self.dropout = nn.Dropout(dropout)

    def heads(self, x):
        B, T, D = x.shape
        return x.view(B, T, self.H, D // self.H).transpose(1, 2).reshape(B * self.H, T, D // self.H)

    def forward(self, x, mask=None):
        B, T, D = x.shape
        query, key, value = self.heads(self.query(x)), self.heads(self.key(x)), self.heads(self.value(x))
        scores = torch.baddbmm(query.new_zeros(1, 1, 1), query, key.transpose(1, 2), alpha=1 / math.sqrt(D // self.H))
        if mask is not None:
            mask = mask.expand(B, T, T).repeat_interleave(self.H, dim=0)
            scores.masked_fill_(~mask, -torch.inf)
        out = self.dropout(torch.softmax(scores, dim=-1)) @ value
        return self.output(out.view(B, self.H, T, -1).transpose(1, 2).flatten(2))


# ---- grouped queries

right("grouped_query")(lambda query, key, value: F.scaled_dot_product_attention(query, key, value, enable_gqa=True))


@right("grouped_query")
def grouped_by_view(query, key, value):
    B, H, T, E = query.shape
    K = key.shape[1]
    grouped = query.view(B, K, H // K, T, E)
    weights = torch.softmax(grouped @ key.unsqueeze(2).mT / E ** 0.5, -1)
    return (weights @ value.unsqueeze(2)).flatten(1, 2)


@right("grouped_query")
def grouped_by_index(query, key, value):
    of_head = torch.arange(query.shape[1]) // (query.shape[1] // key.shape[1])
    key, value = key[:, of_head], value[:, of_head]
    return torch.softmax(query @ key.transpose(2, 3) / math.sqrt(query.shape[3]), 3) @ value


@right("grouped_query")
def grouped_head_by_head(query, key, value):
    per = query.shape[1] // key.shape[1]
    heads = [F.scaled_dot_product_attention(query[:, h], key[:, h // per], value[:, h // per]) for h in range(query.shape[1])]
    return torch.stack(heads, dim=1)


@right("grouped_query")
def grouped_by_expand(query, key, value):
    B, H, _, E = query.shape
    K, S = key.shape[1:3]
    key, value = (x[:, :, None].expand(B, K, H // K, S, E).reshape(B, H, S, E) for x in (key, value))
    return F.scaled_dot_product_attention(query, key, value)


# ---- byte-pair encoding

@right("merge")
def merge_with_iterator(ids, pair, new):
    result, numbers = [], iter([*ids, None])
    before = next(numbers)
    for number in numbers:
        if before is not None and (before, number) == tuple(pair):
            result.append(new)
            before = next(numbers, None)
        elif before is not None:
            result.append(before)
            before = number
    return result


@right("merge")
def merge_by_reduce(ids, pair, new):
    def add(done, token):
        return [*done[:-1], new] if done and done[-1] == pair[0] and token == pair[1] else [*done, token]
    return reduce(add, ids, [])


@right("merge")
def merge_with_while(ids, pair, new):
    ids, out = list(ids), []
    while ids:
        if ids[:2] == [*pair]:
            out.append(new)
            del ids[:2]
        else:
            out.append(ids.pop(0))
    return out


@right("learn")
def learn_with_defaultdict(words, n_merges):
    corpus = {word: list(word) for word in words}
    merges = []
    for i in range(n_merges):
        stats = defaultdict(int)
        for word, ids in corpus.items():
            for a, b in pairwise(ids):
                stats[a, b] += words[word]
        if not stats:
            break
        best = sorted(stats, key=lambda pair: (-stats[pair], *pair))[0]
        corpus = {word: merge_with_while(ids, best, 256 + i) for word, ids in corpus.items()}
        merges.append(best)
    return merges


@right("learn")
def learn_words_as_often_as_they_occur(words, n_merges):
    rows = [list(word) for word, often in words.items() for _ in range(often)]
    merges = []
    while len(merges) < n_merges and (counts := Counter(pair for row in rows for pair in pairwise(row))):
        most = max(counts.values())
        best = min(pair for pair in counts if counts[pair] == most)
        rows = [merge_by_reduce(row, best, 256 + len(merges)) for row in rows]
        merges += [best]
    return merges


@right("encode")
def encode_by_reduce(word, merges):
    return reduce(lambda ids, numbered: merge_with_while(ids, numbered[1], 256 + numbered[0]), enumerate(merges), list(word))


@right("encode")
def encode_while_anything_fits(word, merges):
    ids = list(word)
    while fitting := [pair for pair in merges if pair in set(pairwise(ids))]:
        ids = merge_with_iterator(ids, fitting[0], 256 + merges.index(fitting[0]))
    return ids


@right("stream")
def stream_with_state(pieces):
    decoder, out = codecs.getincrementaldecoder("utf8")("strict"), []
    for piece in pieces:
        out += [decoder.decode(piece, final=False)]
    return out


@right("stream")
def stream_by_error(pieces):
    out, rest = [], b""
    for piece in pieces:
        rest += piece
        try:
            out.append(rest.decode())
            rest = b""
        except UnicodeDecodeError as error:
            out.append(rest[:error.start].decode())
            rest = rest[error.start:]
    return out


@right("stream")
def stream_byte_by_byte(pieces):
    out, waiting = [], bytearray()
    for piece in pieces:
        text = ""
        for byte in piece:
            waiting.append(byte)
            lead = waiting[0]
            needed = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            if len(waiting) == needed:
                text += waiting.decode()
                waiting.clear()
        out.append(text)
    return out
