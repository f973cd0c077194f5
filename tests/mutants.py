"""Small changes of right code: an operator, an index, a dimension, a constant, a call, a name, a statement."""

import ast
import copy
from collections.abc import Iterator

OPERATORS = {ast.Add: (ast.Sub, ast.Mult), ast.Sub: (ast.Add,), ast.Mult: (ast.Div, ast.Add), ast.Div: (ast.Mult, ast.Sub),
             ast.MatMult: (ast.Mult,), ast.FloorDiv: (ast.Mod, ast.Mult), ast.Pow: (ast.Mult,),
             ast.BitAnd: (ast.BitOr, ast.BitXor), ast.BitOr: (ast.BitAnd, ast.BitXor)}
COMPARISONS = {ast.LtE: (ast.Lt, ast.GtE), ast.Lt: (ast.LtE, ast.Gt), ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,),
               ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.LtE)}
CALLS = {"amax": ("amin", "mean"), "max": ("min",), "sum": ("mean", "amax"), "exp": ("exp2", "abs", "expm1"),
         "softmax": ("log_softmax",), "sqrt": ("float", "abs"), "tril": ("triu",), "ones": ("zeros",), "arange": ("ones",),
         "repeat_interleave": ("repeat",), "transpose": ("flip",), "masked_fill": ("masked_fill_",), "stack": ("cat",),
         "cat": ("stack",), "view": ("reshape",), "dropout": ("alpha_dropout",), "relu": ("abs", "sigmoid"),
         "silu": ("relu", "sigmoid"), "sigmoid": ("tanh", "relu"), "zeros_like": ("ones_like",), "square": ("abs", "exp"),
         "mean": ("sum", "amax"), "rsqrt": ("sqrt", "reciprocal"), "triu": ("tril",),
         "logsumexp": ("amax", "sum"), "log_softmax": ("softmax",), "logaddexp": ("maximum", "add"), "maximum": ("minimum",),
         "full_like": ("zeros_like",), "cos": ("sin",), "lerp": ("add",),
         "T": ("data",), "mT": ("data",)}
NAMES = {"query": ("key", "value"), "key": ("value", "query"), "value": ("key", "query"), "n_queries": ("n_keys",),
         "n_keys": ("n_queries",), "B": ("T",), "T": ("B",), "E": ("D",), "H": ("E",), "weights": ("scores",),
         "n_prefix": ("n_positions",), "n_positions": ("n_prefix",), "keys": ("queries",), "queries": ("keys",),
         "ids": ("merged",), "merged": ("ids",), "token": ("new",), "new": ("token",), "best": ("both",),
         "past": ("same",), "same": ("past",), "s": ("t",), "t": ("s",),
         "gate": ("up", "down"), "up": ("gate", "down"), "down": ("up",), "keep": ("gate",),
         "attention": ("feed_forward",), "feed_forward": ("attention",), "attention_norm": ("feed_forward_norm",),
         "feed_forward_norm": ("attention_norm",), "h": ("x", "read"), "read": ("x",), "norm": ("layer",),
         "norm_weight": ("linear_weight",), "linear_weight": ("norm_weight",),
         "norm_1": ("norm_2",), "norm_2": ("norm_1", "norm"), "embedding": ("positions",), "positions": ("embedding",),
         "V": ("D",), "D": ("V", "H"), "L": ("K",), "K": ("H",), "tied": ("K",), "period": ("T",),
         "logits": ("targets",), "targets": ("logits",), "answer": ("tokens",), "tokens": ("answer",), "largest": ("here",),
         "here": ("largest", "found"), "counts": ("picked",), "rows": ("asked",), "asked": ("targets",), "now": ("new",),
         "m": ("v", "mean"), "v": ("m", "square"), "mean_hat": ("mean", "gradient"), "square_hat": ("square", "mean_hat"),
         "gradient": ("weight",), "weight": ("gradient",), "square": ("mean",), "beta_1": ("beta_2",), "beta_2": ("beta_1",),
         "shrunk": ("weight",), "lr": ("decay",), "decay": ("lr",), "ratio": ("mean_hat",), "wide": ("learns",),
         "learns": ("wide",), "highest": ("lowest",), "lowest": ("highest",),
         "n_epochs": ("steps_per_epoch",), "steps_per_epoch": ("n_epochs",),
         "warmup_steps": ("n", "steps_per_epoch"), "left": ("warmup_steps",), "rise": ("fall",), "fall": ("rise",),
         "matrix": ("x",), "vt": ("u",), "u": ("vt",)}


def mutants(source: str) -> Iterator[tuple[str, str]]:   # what was changed, and the changed source
    "Every program that differs from this one in one place."
    tree = ast.parse(source)
    for number, node in enumerate(ast.walk(tree)):
        for change in range(20):
            changed = copy.deepcopy(tree)
            place = next(other for i, other in enumerate(ast.walk(changed)) if i == number)
            before = ast.unparse(place)
            if not mutate(place, change):
                break
            try:
                text = ast.unparse(ast.fix_missing_locations(changed))
            except (AttributeError, ValueError):
                continue
            if text != ast.unparse(tree):
                yield f"line {getattr(node, 'lineno', 0)}: {before} → {ast.unparse(place)}", text


def mutate(node: ast.AST, change: int) -> bool:
    "Make the change of this number; whether there is one."
    match node:
        case ast.BinOp(op=op) if type(op) in OPERATORS:
            options = [*OPERATORS[type(op)], "exchange"]
            if change < len(options):
                if options[change] == "exchange":
                    node.left, node.right = node.right, node.left
                else:
                    node.op = options[change]()
                return True
        case ast.BoolOp(op=op) if change == 0:
            node.op = ast.And() if isinstance(op, ast.Or) else ast.Or()
            return True
        case ast.UnaryOp(operand=operand) if change == 0:
            replace(node, operand)
            return True
        case ast.Compare(ops=[op]) if type(op) in COMPARISONS and change < len(COMPARISONS[type(op)]):
            node.ops = [COMPARISONS[type(op)][change]()]
            return True
        case ast.Constant(value=bool(value)) if change == 0:
            node.value = not value
            return True
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool) and change < 3:
            node.value = (value + 1, value - 1, 2 * value + 3)[change]
            return True
        case ast.Call(keywords=keywords, args=args) if change < len(keywords) + (len(args) > 1):
            if change < len(keywords):
                del node.keywords[change]
            else:
                node.args.pop()
            return True
        case ast.Attribute(attr=attr) if change < len(CALLS.get(attr, ()) or NAMES.get(attr, ())):
            node.attr = (CALLS.get(attr) or NAMES[attr])[change]
            return True
        case ast.Name(id=name, ctx=ast.Load()) if change < len(NAMES.get(name, ()) or CALLS.get(name, ())):
            node.id = (NAMES.get(name) or CALLS[name])[change]
            return True
        case ast.FunctionDef(body=body) | ast.If(body=body) | ast.For(body=body) if change < len(body) and len(body) > 1:
            del body[change]
            return True
        case ast.IfExp() if change == 0:
            node.body, node.orelse = node.orelse, node.body
            return True
    return False


def replace(node: ast.AST, by: ast.AST) -> None:
    "Turn a node into another one."
    node.__class__ = by.__class__
    node.__dict__.clear()
    node.__dict__.update(by.__dict__)
