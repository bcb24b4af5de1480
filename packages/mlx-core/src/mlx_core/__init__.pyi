from . import audio as audio
from . import backend as backend
from . import bench as bench
from . import cache as cache
from . import checkpoints as checkpoints
from . import cli as cli
from . import config as config
from . import demo as demo
from . import engines as engines
from . import errors as errors
from . import files as files
from . import generation as generation
from . import kernels as kernels
from . import models as models
from . import ops as ops
from . import terminal as terminal
from . import testing as testing
from . import text as text
from .audio import AudioConfig, compute_mel_spectrogram, load_audio_for_hubert, load_wav, resample, save_wav
from .backend import Backend
from .cache import (
    BatchKVCache,
    ConcatKeyValueCache,
    KeyValueCache,
    KVCache,
    QuantizedBatchKVCache,
    QuantizedKVCache,
    QuantizedRotatingKVCache,
    RotatingKVCache,
    load_prompt_cache,
    quantize_cache,
    save_prompt_cache,
)
from .checkpoints import Rule, WeightMapping, load_pytorch_checkpoint
from .config import LayerQuantization, QuantizationConfig
from .errors import (
    AudioError,
    BackendError,
    CacheError,
    ConfigError,
    ConversionError,
    EngineError,
    HubError,
    InputError,
    MissingBackendError,
    MissingCheckpointError,
    MLXCoreError,
    TokenizerError,
    WeightsError,
)
from .generation import (
    BatchChunk,
    BatchGenerate,
    ChatSession,
    DefaultSampler,
    DraftModel,
    Generate,
    GenerationChunk,
    GenerationResult,
    GenerationStats,
    Perplexity,
    PromptLookup,
    Response,
    Sampler,
    SamplingParams,
    SpeculativeGenerate,
    TokenLogprob,
    generate,
    perplexity,
    stream_generate,
)
from .kernels import fused_modulate, fused_swiglu
from .models import ModelInput, ModelOutput, convert_model, load, load_model, save_model
from .ops import (
    conv1d,
    conv2d,
    conv_transpose1d,
    conv_transpose2d,
    create_attention_mask,
    initialize_rope,
    scaled_dot_product_attention,
)
from .text import (
    InvalidToolCall,
    Reply,
    ReplyFormat,
    ReplyParser,
    TextDelta,
    ThinkingDelta,
    Tokenizer,
    ToolCall,
    load_tokenizer,
    parse_reply,
    register_format,
    reply_format,
    tool_message,
)

__all__ = [
    "AudioConfig",
    "AudioError",
    "Backend",
    "BackendError",
    "BatchChunk",
    "BatchGenerate",
    "BatchKVCache",
    "CacheError",
    "ChatSession",
    "ConcatKeyValueCache",
    "ConfigError",
    "ConversionError",
    "DefaultSampler",
    "DraftModel",
    "EngineError",
    "Generate",
    "GenerationChunk",
    "GenerationResult",
    "GenerationStats",
    "HubError",
    "InputError",
    "InvalidToolCall",
    "KVCache",
    "KeyValueCache",
    "LayerQuantization",
    "MLXCoreError",
    "MissingBackendError",
    "MissingCheckpointError",
    "ModelInput",
    "ModelOutput",
    "Perplexity",
    "PromptLookup",
    "QuantizationConfig",
    "QuantizedBatchKVCache",
    "QuantizedKVCache",
    "QuantizedRotatingKVCache",
    "Reply",
    "ReplyFormat",
    "ReplyParser",
    "Response",
    "RotatingKVCache",
    "Rule",
    "Sampler",
    "SamplingParams",
    "SpeculativeGenerate",
    "TextDelta",
    "ThinkingDelta",
    "TokenLogprob",
    "Tokenizer",
    "TokenizerError",
    "ToolCall",
    "WeightMapping",
    "WeightsError",
    "compute_mel_spectrogram",
    "conv1d",
    "conv2d",
    "conv_transpose1d",
    "conv_transpose2d",
    "convert_model",
    "create_attention_mask",
    "fused_modulate",
    "fused_swiglu",
    "generate",
    "initialize_rope",
    "load",
    "load_audio_for_hubert",
    "load_model",
    "load_prompt_cache",
    "load_pytorch_checkpoint",
    "load_tokenizer",
    "load_wav",
    "parse_reply",
    "perplexity",
    "quantize_cache",
    "register_format",
    "reply_format",
    "resample",
    "save_model",
    "save_prompt_cache",
    "save_wav",
    "scaled_dot_product_attention",
    "stream_generate",
    "tool_message",
]
