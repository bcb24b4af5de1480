"""A tiny Qwen3 checkpoint, with its tokenizer, that tests may copy and damage."""

import json

import mlx.core as mx
import pytest

from mlx_core.models import split_parameters
from mlx_core.testing import byte_tokenizer, randomize
from qwen3_mlx import qwen3

CONFIG = {
    "model_type": "qwen3",
    "vocab_size": 259,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_checkpoint(folder):
    folder.mkdir(parents=True, exist_ok=True)
    model = randomize(qwen3.Model(qwen3.ModelConfig.from_dict(CONFIG)))
    mx.save_safetensors(str(folder / "model.safetensors"), split_parameters(model))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    byte_tokenizer(("<|im_end|>", "<|im_start|>"), chat_template=CHAT_TEMPLATE).save(folder)
    return folder


@pytest.fixture
def checkpoint(tmp_path):
    return write_checkpoint(tmp_path / "tiny")


@pytest.fixture(scope="module")
def shared_checkpoint(tmp_path_factory):
    """One folder for all examples of a property test, which put back what they damage."""
    return write_checkpoint(tmp_path_factory.mktemp("shared") / "tiny")
