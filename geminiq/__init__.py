"""Build, train and talk to transformers.

    from geminiq import load_checkpoint, generate_text, Sampling

Everything here is imported when it is first used: `import geminiq` alone does not load PyTorch.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# PyTorch's threads wait for each other thousands of times in a training step, by default busily: next to a second
# program, a thread that should compute then stands in the queue behind one that only waits, and a step of 30 ms takes
# seconds. Threads that sleep at once wake too slowly for the many small products of a mixture of experts. So they
# look out a thousand times, some microseconds, and then sleep. It is read once, when PyTorch is imported: where that
# has happened before, it holds for the programs started from here, and for this one nothing can be done.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = "0.1.0"

_HOME = {   # each name: the module that defines it
    "Transformer": "models.transformer",
    "ModelConfig": "utils.config",
    "load_config": "utils.config",
    "load_corpus": "data.corpus",
    "BPETokenizer": "data.tokenizer",
    "train_tokenizer": "data.tokenizer",
    "TextDataset": "data.dataset",
    "make_trainer": "training.trainer",
    "Trainer": "training.trainer",
    "save_checkpoint": "utils.checkpointing",
    "load_checkpoint": "utils.checkpointing",
    "Sampling": "generation.sampling",
    "generate": "generation.generate",
    "generate_text": "generation.generate",
    "stream_text": "generation.generate",
    "beam_search": "generation.beam_search",
    "Conversation": "generation.chat",
    "load_pretrained": "models.pretrained",
    "save_pretrained": "models.pretrained",
    "explore_attention": "utils.explorables",
}

if TYPE_CHECKING:   # the same names, for editors and type checkers; a test compares the two
    from .data.corpus import load_corpus as load_corpus
    from .data.dataset import TextDataset as TextDataset
    from .data.tokenizer import BPETokenizer as BPETokenizer
    from .data.tokenizer import train_tokenizer as train_tokenizer
    from .generation.beam_search import beam_search as beam_search
    from .generation.chat import Conversation as Conversation
    from .generation.generate import generate as generate
    from .generation.generate import generate_text as generate_text
    from .generation.generate import stream_text as stream_text
    from .generation.sampling import Sampling as Sampling
    from .models.pretrained import load_pretrained as load_pretrained
    from .models.pretrained import save_pretrained as save_pretrained
    from .models.transformer import Transformer as Transformer
    from .training.trainer import Trainer as Trainer
    from .training.trainer import make_trainer as make_trainer
    from .utils.checkpointing import load_checkpoint as load_checkpoint
    from .utils.checkpointing import save_checkpoint as save_checkpoint
    from .utils.config import ModelConfig as ModelConfig
    from .utils.config import load_config as load_config
    from .utils.explorables import explore_attention as explore_attention
else:
    def __getattr__(name: str) -> Any:
        "Import a name of the package when it is first asked for."
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        return value

__all__ = list(_HOME)


def __dir__() -> list[str]:
    "What the package offers."
    return sorted([*__all__, "__version__"])
