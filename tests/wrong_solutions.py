"""Wrong solutions of exercises, in other words than the museum's, and what must be in the answer."""

import codecs
import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F


class Wrong(NamedTuple):
    exercise: str
    solution: Callable
    words: str   # that name the mistake; "": it is enough to hear where it is


WRONG: list[Wrong] = []


def wrong(exercise: str, words: str = "") -> Callable:
    "A decorator: this solution is wrong."
    def enter(solution: Callable) -> Callable:
        WRONG.append(Wrong(exercise, solution, words))
        return solution
    return enter


# ---- softmax

@wrong("softmax", "columns sum to one")
def softmax_dim0_in_tables(x):
    if x.ndim == 1:
        return x.exp() / x.exp().sum()
    shifted = x - x.max(dim=-2, keepdim=True).values
    return shifted.exp() / shifted.exp().sum(dim=-2, keepdim=True)


@wrong("softmax", "all your weights together")
def softmax_total(x):
    e = torch.exp(x - torch.max(x))
    return e / torch.sum(e)


@wrong("softmax", "whole tensor")
def softmax_global_max(x):
    z = torch.exp(x - torch.max(x))
    return z / z.sum(dim=-1, keepdim=True)


@wrong("softmax", "overflow")
def softmax_naive(x):
    powers = math.e ** x
    return powers / powers.sum(-1, keepdim=True)


@wrong("softmax", "sum to one")
def softmax_forgot_division(x):
    m, _ = x.max(-1, keepdim=True)
    return torch.exp(x - m)


@wrong("softmax", "minus")
def softmax_negative(x):
    return torch.softmax(-x, dim=-1)


@wrong("softmax", "logarithms")
def softmax_logs(x):
    return x - torch.logsumexp(x, -1, keepdim=True)


@wrong("softmax", "stops with")
def softmax_misspelt(x):
    return torch.sofmax(x, dim=-1)


@wrong("softmax", "return")
def softmax_prints(x):
    e = x.exp()
    e = e / e.sum(-1, keepdim=True)


@wrong("softmax", "tuple")
def softmax_two_things(x):
    e = (x - x.amax(-1, keepdim=True)).exp()
    return e, e / e.sum(-1, keepdim=True)


@wrong("softmax", "yield")
def softmax_generator(x):
    for row in x:
        yield row.exp() / row.exp().sum()


@wrong("softmax", "changes its first input")
def softmax_in_place(x):
    x.sub_(x.amax(-1, keepdim=True)).exp_()
    return x / x.sum(-1, keepdim=True)


@wrong("softmax", "gradient")
def softmax_numpy(x):
    values = x.detach().numpy()
    e = torch.from_numpy(values - values.max(-1, keepdims=True)).exp()
    return e / e.sum(-1, keepdim=True)


@wrong("softmax")
def softmax_epsilon(x):
    e = (x - x.amax(-1, keepdim=True)).exp()
    return e / (e.sum(-1, keepdim=True) + 0.01)


@wrong("softmax")
def softmax_temperature(x):
    return torch.softmax(x / math.sqrt(x.shape[-1]), -1)


@wrong("softmax", "mean")
def softmax_mean(x):
    e = (x - x.amax(-1, keepdim=True)).exp()
    return e / e.mean(-1, keepdim=True)


@wrong("softmax")
def softmax_rounded(x):
    return torch.softmax(x, -1).round(decimals=3)


@wrong("softmax")
def softmax_only_two(x):
    return torch.stack([1 / (1 + (x[..., 1] - x[..., 0]).exp()), 1 / (1 + (x[..., 0] - x[..., 1]).exp())], -1)


@wrong("softmax", "never ends")
def softmax_endless(x):
    while x.sum() != 12345.678:
        pass
    return x


@wrong("softmax", "float64")
def softmax_always_single(x):
    out = torch.zeros(x.shape)
    out[...] = torch.softmax(x, -1)
    return out


# ---- attention

@wrong("attention", "square root of E")
def attention_divided_by_d(query, key, value, mask=None):
    d_k = query.size(-1)
    scores = torch.matmul(query, key.transpose(-1, -2)) / d_k
    if mask is not None:
        scores = scores.masked_fill(mask == 0, float("-inf"))
    return torch.nan_to_num(F.softmax(scores, dim=-1)) @ value


@wrong("attention", "not divide")
def attention_unscaled(query, key, value, mask=None):
    scores = torch.einsum("bhqd,bhkd->bhqk", query, key)
    if mask is not None:
        scores = scores.masked_fill(mask == 0, float("-inf"))
    return torch.einsum("bhqk,bhkd->bhqd", F.softmax(scores, dim=-1).nan_to_num(0), value)


@wrong("attention", "upside down")
def attention_inverted(query, key, value, mask=None):
    scores = query @ key.mT / query.shape[-1] ** 0.5
    if mask is not None:
        scores[mask.expand_as(scores)] = -torch.inf
    return scores.softmax(-1).nan_to_num() @ value


@wrong("attention", "nowhere gets NaN")
def attention_no_guard(query, key, value, mask=None):
    scores = query @ key.mT / query.shape[-1] ** 0.5
    bias = torch.zeros_like(scores)
    if mask is not None:
        bias = bias.masked_fill(mask.logical_not(), -math.inf)
    return (scores + bias).softmax(-1) @ value


@wrong("attention", "mean of everything")
def attention_finfo(query, key, value, mask=None):
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1) @ value


@wrong("attention", "two things")
def attention_two_mistakes(query, key, value, mask=None):
    scores = query @ key.mT
    weights = torch.softmax(scores, dim=-2)
    return weights @ value


@wrong("attention", "mask after softmax")
def attention_weights_times_mask(query, key, value, mask=None):
    weights = (query @ key.mT / math.sqrt(query.shape[-1])).softmax(-1)
    if mask is not None:
        weights = torch.where(mask, weights, torch.zeros(()))
    return weights @ value


@wrong("attention", "ignore the mask")
def attention_forgot_assignment(query, key, value, mask=None):
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if mask is not None:
        scores.masked_fill(~mask, -torch.inf)     # the result is thrown away
    return scores.softmax(-1) @ value


@wrong("attention", "return the weights")
def attention_weights_only(query, key, value, mask=None):
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    return torch.softmax(scores, dim=-1)


@wrong("attention", "tuple")
def attention_with_weights(query, key, value, mask=None):
    weights = torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), dim=-1)
    return weights @ value, weights


@wrong("attention", "stops with")
def attention_without_transpose(query, key, value, mask=None):
    scores = query @ key / math.sqrt(query.shape[-1])
    return scores.softmax(-1) @ value


@wrong("attention", "stops with")
def attention_three_dimensions(query, key, value, mask=None):
    scores = torch.bmm(query, key.transpose(1, 2)) / math.sqrt(query.shape[-1])
    return torch.bmm(scores.softmax(-1), value)


@wrong("attention", "stops with")
def attention_without_a_mask(query, key, value):
    return torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), -1) @ value


@wrong("attention", "mask")
def attention_additive(query, key, value, mask=None):
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    return torch.softmax(scores if mask is None else scores + mask.float(), -1) @ value


@wrong("attention")
def attention_soft_hiding(query, key, value, mask=None):
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores - 5 * (~mask).float()
    return torch.softmax(scores, -1) @ value


@wrong("attention", "over the heads")
def attention_dim_one(query, key, value, mask=None):
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    return F.softmax(scores, dim=1) @ value


@wrong("attention", "exchanged query and key")
def attention_keys_first(query, key, value, mask=None):
    return torch.softmax(key @ query.mT / math.sqrt(query.shape[-1]), -1) @ value


@wrong("attention", "number of keys")
def attention_by_length(query, key, value, mask=None):
    scores = query @ key.mT / math.sqrt(key.shape[2])
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1).nan_to_num() @ value


@wrong("attention", "number of queries")
def attention_by_queries(query, key, value, mask=None):
    scores = query @ key.mT / math.sqrt(query.shape[2])
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1).nan_to_num() @ value


@wrong("attention", "sum to one")
def attention_relu(query, key, value, mask=None):
    return torch.relu(query @ key.mT / math.sqrt(query.shape[-1])) @ value


@wrong("attention", "gradient")
def attention_no_grad(query, key, value, mask=None):
    with torch.no_grad():
        scores = query @ key.mT / math.sqrt(query.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(-1).nan_to_num() @ value


@wrong("attention", "float64")
def attention_buffer(query, key, value, mask=None):
    out = torch.zeros(*query.shape)
    for b in range(query.shape[0]):
        scores = query[b] @ key[b].mT / math.sqrt(query.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        out[b] = scores.softmax(-1).nan_to_num() @ value[b]
    return out


# ---- causal mask

@wrong("causal_mask", "future")
def causal_diagonal_one(n_queries, n_keys):
    return torch.tril(torch.ones(n_queries, n_keys), diagonal=1 + n_keys - n_queries).bool()


@wrong("causal_mask", "itself")
def causal_strict(n_queries, n_keys):
    return torch.arange(n_keys) < torch.arange(n_keys - n_queries, n_keys)[:, None]


@wrong("causal_mask", "boolean")
def causal_floats(n_queries, n_keys):
    return torch.tril(torch.ones(n_queries, n_keys), diagonal=n_keys - n_queries)


@wrong("causal_mask", "boolean")
def causal_ints(n_queries, n_keys):
    return torch.ones(n_queries, n_keys, dtype=torch.int).tril(n_keys - n_queries)


@wrong("causal_mask", "Shift the diagonal")
def causal_lists(n_queries, n_keys):
    return torch.tensor([[s <= t for s in range(n_keys)] for t in range(n_queries)])


@wrong("causal_mask", "turn it round")
def causal_for_masked_fill(n_queries, n_keys):
    return torch.triu(torch.ones(n_queries, n_keys, dtype=torch.bool), diagonal=n_keys - n_queries + 1)


@wrong("causal_mask", "row for each key")
def causal_square(n_queries, n_keys):
    return torch.ones(n_keys, n_keys).tril() == 1


@wrong("causal_mask", "upside down")
def causal_exchanged(n_queries, n_keys):
    return (torch.arange(n_keys)[:, None] <= torch.arange(n_keys - n_queries, n_keys)[None, :])


@wrong("causal_mask", "shape")
def causal_with_batch(n_queries, n_keys):
    return torch.ones(1, 1, n_queries, n_keys, dtype=torch.bool).tril(n_keys - n_queries)


@wrong("causal_mask", "tensor")
def causal_plain_lists(n_queries, n_keys):
    return [[s <= t + n_keys - n_queries for s in range(n_keys)] for t in range(n_queries)]


@wrong("causal_mask", "hides nothing")
def causal_all(n_queries, n_keys):
    return torch.ones(n_queries, n_keys) > 0


@wrong("causal_mask")
def causal_window(n_queries, n_keys):
    distance = torch.arange(n_keys - n_queries, n_keys)[:, None] - torch.arange(n_keys)
    return (distance >= 0) & (distance < 3)


# ---- many heads

class Base(nn.Module):
    "What the wrong modules share."

    def __init__(self, d_model, n_heads, dropout):
        nn.Module.__init__(self)
        self.h, self.p = n_heads, dropout
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.output = nn.Linear(d_model, d_model)

    def cut(self, x):
        return x.reshape(x.shape[0], x.shape[1], self.h, -1).permute(0, 2, 1, 3)

    def weights(self, x, mask):
        q, k = self.cut(self.query(x)), self.cut(self.key(x))
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~(mask.unsqueeze(-3) if mask.ndim == 3 else mask), -torch.inf)
        return F.dropout(scores.softmax(-1), self.p, self.training)

    def forward(self, x, mask=None):
        heads = self.weights(x, mask) @ self.cut(self.value(x))
        return self.output(heads.permute(0, 2, 1, 3).reshape(x.shape))


@wrong("multi_head", "without transposing back")
class HeadsNotTurnedBack(Base):
    def forward(self, x, mask=None):
        return self.output((self.weights(x, mask) @ self.cut(self.value(x))).reshape(x.shape))


@wrong("multi_head", "mix positions")
class HeadsCutByView(Base):
    def cut(self, x):
        return x.view(x.shape[0], self.h, x.shape[1], -1)


@wrong("multi_head", "H-th number")
class HeadsInterleaved(Base):
    def cut(self, x):
        return x.reshape(x.shape[0], x.shape[1], -1, self.h).permute(0, 3, 1, 2)

    def forward(self, x, mask=None):
        heads = self.weights(x, mask) @ self.cut(self.value(x))
        return self.output(heads.permute(0, 2, 3, 1).reshape(x.shape))


@wrong("multi_head", "`output`")
class HeadsWithoutOutput(Base):
    def forward(self, x, mask=None):
        heads = self.weights(x, mask) @ self.cut(self.value(x))
        return heads.permute(0, 2, 1, 3).reshape(x.shape)


@wrong("multi_head", "`foward`")
class HeadsMisspelt(nn.Module):
    __init__ = Base.__init__

    def foward(self, x, mask=None):
        return x


@wrong("multi_head", "super().__init__()")
class HeadsWithoutSuper(nn.Module):
    def __init__(self, d_model, n_heads, dropout):
        self.query = nn.Linear(d_model, d_model)


@wrong("multi_head", "`value`")
class HeadsWithoutValue(Base):
    def __init__(self, d_model, n_heads, dropout):
        super().__init__(d_model, n_heads, dropout)
        self.values = self.value
        del self.value


@wrong("multi_head", "reshape")
class HeadsByViewAfterTranspose(Base):
    def forward(self, x, mask=None):
        heads = self.weights(x, mask) @ self.cut(self.value(x))
        return self.output(heads.transpose(1, 2).view(x.shape))


@wrong("multi_head", "stops with")
class HeadsWithOneMaskOnly(Base):
    def weights(self, x, mask):
        q, k = self.cut(self.query(x)), self.cut(self.key(x))
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        if mask is not None:
            _, _ = mask.shape
            scores = scores.masked_fill(~mask, -torch.inf)
        return F.dropout(scores.softmax(-1), self.p, self.training)


@wrong("multi_head", "width of the model")
class HeadsScaledByD(Base):
    def weights(self, x, mask):
        q, k = self.cut(self.query(x)), self.cut(self.key(x))
        scores = q @ k.mT / math.sqrt(x.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~(mask.unsqueeze(-3) if mask.ndim == 3 else mask), -torch.inf)
        return F.dropout(scores.softmax(-1), self.p, self.training)


@wrong("multi_head", "still dropped")
class HeadsAlwaysDropping(Base):
    def weights(self, x, mask):
        training, self.training = self.training, True
        found = super().weights(x, mask)
        self.training = training
        return found


@wrong("multi_head", "no weight is dropped")
class HeadsWithoutDropout(Base):
    def __init__(self, d_model, n_heads, dropout):
        super().__init__(d_model, n_heads, 0.0)


@wrong("multi_head", "single numbers")
class HeadsDroppingTheOutput(Base):
    def __init__(self, d_model, n_heads, dropout):
        super().__init__(d_model, n_heads, 0.0)
        self.drop = nn.Dropout(dropout)

    def forward(self, x, mask=None):
        return self.drop(super().forward(x, mask))


@wrong("multi_head", "add the input")
class HeadsWithAStream(Base):
    def forward(self, x, mask=None):
        return super().forward(x, mask) + x


@wrong("multi_head", "ignore the mask")
class HeadsBlindToMasks(Base):
    def weights(self, x, mask):
        return super().weights(x, None)


@wrong("multi_head", "nothing else is learned")
class HeadsWithAGate(Base):
    def __init__(self, d_model, n_heads, dropout):
        super().__init__(d_model, n_heads, dropout)
        self.gate = nn.Parameter(torch.ones(n_heads))


@wrong("multi_head", "one and the same")
class HeadsWithSharedLayers(Base):
    def __init__(self, d_model, n_heads, dropout):
        super().__init__(d_model, n_heads, dropout)
        self.query = self.key = self.value


@wrong("multi_head", "two things")
class HeadsTwiceWrong(Base):
    def cut(self, x):
        return x.view(x.shape[0], self.h, x.shape[1], -1)

    def weights(self, x, mask):
        q, k = self.cut(self.query(x)), self.cut(self.key(x))
        scores = q @ k.mT
        if mask is not None:
            scores = scores.masked_fill(~(mask.unsqueeze(-3) if mask.ndim == 3 else mask), -torch.inf)
        return F.dropout(scores.softmax(-1), self.p, self.training)


# ---- shared keys and values

@wrong("grouped_query", "`repeat`")
def grouped_tiled(query, key, value):
    n = query.shape[1] // key.shape[1]
    key, value = torch.cat([key] * n, dim=1), torch.cat([value] * n, dim=1)
    return torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), -1) @ value


@wrong("grouped_query", "`repeat`")
def grouped_modulo(query, key, value):
    heads = []
    for h in range(query.shape[1]):
        k, v = key[:, h % key.shape[1]], value[:, h % key.shape[1]]
        heads.append(torch.softmax(query[:, h] @ k.mT / math.sqrt(query.shape[-1]), -1) @ v)
    return torch.stack(heads, 1)


@wrong("grouped_query", "stops with")
def grouped_not_repeated(query, key, value):
    return torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), -1) @ value


@wrong("grouped_query", "first head")
def grouped_broadcast(query, key, value):
    return torch.softmax(query @ key[:, :1].mT / math.sqrt(query.shape[-1]), -1) @ value[:, :1]


@wrong("grouped_query", "average")
def grouped_mean(query, key, value):
    k, v = key.mean(1, keepdim=True), value.mean(1, keepdim=True)
    return torch.softmax(query @ k.mT / math.sqrt(query.shape[-1]), -1) @ v


@wrong("grouped_query", "√E")
def grouped_unscaled(query, key, value):
    n = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(n, 1), value.repeat_interleave(n, 1)
    return torch.softmax(torch.einsum("bhtd,bhsd->bhts", query, key), -1) @ value


@wrong("grouped_query", "shape")
def grouped_not_merged(query, key, value):
    grouped = query.unflatten(1, (key.shape[1], -1))
    weights = torch.softmax(grouped @ key[:, :, None].mT / math.sqrt(query.shape[-1]), -1)
    return weights @ value[:, :, None]


@wrong("grouped_query")
def grouped_in_the_other_order(query, key, value):
    grouped = query.unflatten(1, (-1, key.shape[1])).transpose(1, 2)
    weights = torch.softmax(grouped @ key[:, :, None].mT / math.sqrt(query.shape[-1]), -1)
    return (weights @ value[:, :, None]).flatten(1, 2)


@wrong("grouped_query", "values in turn")
def grouped_mixed(query, key, value):
    n = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(n, 1), value.repeat(1, n, 1, 1)
    return torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), -1) @ value


@wrong("grouped_query", "gradient")
def grouped_copied(query, key, value):
    n = query.shape[1] // key.shape[1]
    key, value = torch.tensor(key.tolist()).to(key), torch.tensor(value.tolist()).to(value)
    return torch.softmax(query @ key.repeat_interleave(n, 1).mT / math.sqrt(query.shape[-1]), -1) @ value.repeat_interleave(n, 1)


# ---- document and prefix masks

@wrong("document_mask", "documents before")
def documents_forgotten(documents):
    return torch.tril(torch.ones(len(documents), len(documents))).bool()


@wrong("document_mask", "future")
def documents_without_order(documents):
    return documents.unsqueeze(0) == documents.unsqueeze(1)


@wrong("document_mask", "diagonal")
def documents_strictly(documents):
    place = torch.arange(len(documents))
    return (place[:, None] > place) & (documents[:, None] == documents)


@wrong("document_mask")
def documents_by_equal_length(documents):
    n, length = len(documents), int((documents == documents[0]).sum())
    blocks = torch.arange(n) // length
    return torch.ones(n, n).tril().bool() & (blocks[:, None] == blocks)


@wrong("document_mask", "boolean")
def documents_multiplied(documents):
    return torch.tril(torch.ones(len(documents), len(documents))) * (documents[:, None] == documents)


@wrong("document_mask", "turn it round")
def documents_for_masked_fill(documents):
    n = len(documents)
    return torch.triu(torch.ones(n, n), 1).bool() | (documents[:, None] != documents[None])


@wrong("document_mask")
def documents_in_one_row(documents):
    return documents == documents[-1]


@wrong("document_mask", "first document from all others")
def documents_all_of_one_length(documents):
    first = (documents == documents[0]).nonzero()[-1].item() + 1
    mask = torch.ones(len(documents), len(documents), dtype=torch.bool).tril()
    mask[first:, :first] = False
    return mask


@wrong("prefix_mask", "causal too")
def prefix_forgotten(n_prefix, n_positions):
    return torch.tril(torch.ones(n_positions, n_positions, dtype=torch.bool))


@wrong("prefix_mask")
def prefix_square_only(n_prefix, n_positions):
    mask = torch.zeros(n_positions, n_positions, dtype=torch.bool)
    mask[:n_prefix, :n_prefix] = True
    return mask


@wrong("prefix_mask", "open its columns")
def prefix_rows(n_prefix, n_positions):
    mask = torch.tril(torch.ones(n_positions, n_positions)).bool()
    mask[:n_prefix] = True
    return mask


@wrong("prefix_mask", "too long")
def prefix_inclusive(n_prefix, n_positions):
    keys = torch.arange(n_positions)
    return (keys[None] <= keys[:, None]) | (keys <= n_prefix)


@wrong("prefix_mask", "itself")
def prefix_strict(n_prefix, n_positions):
    keys = torch.arange(n_positions)
    return (keys[None] < keys[:, None]) | (keys < n_prefix)


@wrong("prefix_mask", "turn it round")
def prefix_for_masked_fill(n_prefix, n_positions):
    mask = torch.triu(torch.ones(n_positions, n_positions, dtype=torch.bool), 1)
    mask[:, :n_prefix] = False
    return mask


@wrong("prefix_mask")
def prefix_arguments_exchanged(n_positions, n_prefix):
    keys = torch.arange(n_positions)
    return (keys <= keys[:, None]) | (keys < n_prefix)


# ---- byte-pair encoding

@wrong("merge", "three equal numbers")
def merge_all_pairs_found_before(ids, pair, new):
    starts = [i for i in range(len(ids) - 1) if (ids[i], ids[i + 1]) == pair]
    skip = {i + 1 for i in starts}
    return [new if i in starts else token for i, token in enumerate(ids) if i in starts or i not in skip]


@wrong("merge", "last number is lost")
def merge_zip(ids, pair, new):
    out, jump = [], False
    for a, b in pairwise(ids):
        if jump:
            jump = False
        elif (a, b) == pair:
            out.append(new)
            jump = True
        else:
            out.append(a)
    return out


@wrong("merge", "only the first")
def merge_index_once(ids, pair, new):
    ids = list(ids)
    for i in range(len(ids) - 1):
        if ids[i] == pair[0] and ids[i + 1] == pair[1]:
            ids[i:i + 2] = [new]
            break
    return ids


@wrong("merge", "either order")
def merge_sorted_pair(ids, pair, new):
    out, i = [], 0
    while i < len(ids):
        if sorted(ids[i:i + 2]) == sorted(pair):
            out, i = [*out, new], i + 2
        else:
            out, i = [*out, ids[i]], i + 1
    return out


@wrong("merge", "IndexError")
def merge_beyond_the_end(ids, pair, new):
    out, i = [], 0
    while i < len(ids):
        if ids[i] == pair[0] and ids[i + 1] == pair[1]:
            out.append(new)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def _merged(ids, pair, new):
    out, i = [], 0
    while i < len(ids):
        if list(ids[i:i + 2]) == list(pair):
            out.append(new)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def _learned(words, n, count, best, first=256):
    split, merges = {word: list(word) for word in words}, []
    for step in range(n):
        counts: dict = {}
        for word, ids in split.items():
            for both in pairwise(ids):
                counts[both] = counts.get(both, 0) + count(word, words)
        if not counts:
            break
        pair = best(counts)
        merges.append(pair)
        split = {word: _merged(ids, pair, first + step) for word, ids in split.items()}
    return merges


@wrong("learn", "each word counts once")
def learn_unweighted(words, n_merges):
    return _learned(words, n_merges, lambda word, words: 1, lambda counts: min(counts, key=lambda p: (-counts[p], p)))


@wrong("learn")
def learn_first_found(words, n_merges):
    return _learned(words, n_merges, lambda word, words: words[word], lambda counts: max(counts, key=counts.get))


@wrong("learn", "begin with 257")
def learn_257(words, n_merges):
    return _learned(words, n_merges, lambda word, words: words[word],
                    lambda counts: min(counts, key=lambda p: (-counts[p], p)), first=257)


@wrong("learn", "larger")
def learn_sorted_reverse(words, n_merges):
    return _learned(words, n_merges, lambda word, words: words[word],
                    lambda counts: sorted(counts.items(), key=lambda item: (item[1], item[0]), reverse=True)[0][0])


@wrong("learn", "count once")
def learn_most_common(words, n_merges):
    counts: dict = {}
    for word, often in words.items():
        for i in range(len(word) - 1):
            counts[word[i], word[i + 1]] = counts.get((word[i], word[i + 1]), 0) + often
    return sorted(counts, key=lambda p: (-counts[p], p))[:n_merges]


@wrong("encode", "longest piece")
def encode_greedy(word, merges):
    vocabulary = {bytes([i]): i for i in range(256)}
    names = [bytes([i]) for i in range(256)]
    for left, right in merges:
        names.append(names[left] + names[right])
        vocabulary[names[-1]] = len(names) - 1
    ids, start = [], 0
    while start < len(word):
        end = len(word)
        while word[start:end] not in vocabulary:
            end -= 1
        ids.append(vocabulary[word[start:end]])
        start = end
    return ids


@wrong("encode", "stop at the first")
def encode_while(word, merges):
    ids, n = list(word), 0
    while n < len(merges) and merges[n] in list(pairwise(ids)):
        ids = _merged(ids, merges[n], 256 + n)
        n += 1
    return ids


@wrong("encode", "learned last")
def encode_backwards(word, merges):
    ids = list(word)
    for n, pair in list(enumerate(merges))[::-1]:
        ids = _merged(ids, pair, 256 + n)
    return ids


@wrong("encode")
def encode_off_by_one(word, merges):
    ids = list(word)
    for n, pair in enumerate(merges):
        ids = _merged(ids, pair, 257 + n)
    return ids


@wrong("stream", "half a character")
def stream_default(pieces):
    return [str(piece, "utf-8", "replace") for piece in pieces]


@wrong("stream", "thrown away")
def stream_try(pieces):
    out = []
    for piece in pieces:
        try:
            out.append(piece.decode())
        except UnicodeDecodeError:
            out.append("")
    return out


@wrong("stream", "before the end")
def stream_joined(pieces):
    out = [""] * len(pieces)
    out[-1] = b"".join(pieces).decode("utf8")
    return out


@wrong("stream", "wait until all bytes")
def stream_buffer_try(pieces):
    out, buffer = [], b""
    for piece in pieces:
        buffer += piece
        try:
            text = buffer.decode("utf-8")
        except UnicodeDecodeError:
            text = ""
        else:
            buffer = b""
        out.append(text)
    return out


@wrong("stream", "one for each token")
def stream_yield_like(pieces):
    decoder = codecs.getincrementaldecoder("utf-8")()
    return [text for piece in pieces if (text := decoder.decode(piece))]


# ---- rotary positions

@wrong("rotate", "other way round")
def rotate_transposed_matrix(x, angles):
    matrix = torch.stack([torch.stack([angles.cos(), angles.sin()], -1), torch.stack([-angles.sin(), angles.cos()], -1)], -2)
    points = torch.stack(x.chunk(2, -1), -1)                                        # (B, H, T, E/2, 2)
    return torch.einsum("tirc,bhtic->bhtir", matrix, points).transpose(-1, -2).flatten(-2)


@wrong("rotate", "neighbours")
def rotate_as_complex(x, angles):
    points = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(points * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


@wrong("rotate", "new first one")
def rotate_loop_written_over(x, angles):
    x, half = x.clone(), x.shape[-1] // 2
    for i in range(half):
        x[..., i] = x[..., i] * angles[:, i].cos() - x[..., i + half] * angles[:, i].sin()
        x[..., i + half] = x[..., i + half] * angles[:, i].cos() + x[..., i] * angles[:, i].sin()
    return x


@wrong("rotate")
def rotate_by_twice_the_angle(x, angles):
    a, b = x.chunk(2, -1)
    cos, sin = (2 * angles).cos(), (2 * angles).sin()
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


@wrong("to_halves", "back instead of there")
def halves_undone(weight, n_heads):
    heads = weight.unflatten(0, (n_heads, -1))
    first, second = heads.chunk(2, dim=1)
    return torch.stack([first, second], dim=2).reshape(weight.shape)


@wrong("to_halves", "mixes the heads")
def halves_of_the_whole(weight, n_heads):
    order = [*range(0, len(weight), 2), *range(1, len(weight), 2)]
    return weight[order]


@wrong("to_halves", "odd numbers")
def halves_odd_first(weight, n_heads):
    pairs = weight.view(n_heads, -1, 2, weight.shape[1])
    return torch.cat([pairs[:, :, 1], pairs[:, :, 0]], dim=1).reshape(weight.shape)
