"""Generation: one request or many, drafts, sampling, conversations, perplexity."""

from .. import backend as backend  # first: without MLX it says what to install

# isort: split
from .batching import BatchChunk, BatchGenerate, generate_batch
from .chat import ChatSession
from .evaluation import Perplexity, perplexity
from .generation import Generate, SpeculativeGenerate, generate, stream_generate
from .request import GenerationChunk, GenerationResult, GenerationStats, Response
from .sampler import DefaultSampler, Sampler, SamplingParams, TokenLogprob
from .speculative import Draft, DraftModel, PromptLookup

__all__ = [
    "BatchChunk",
    "BatchGenerate",
    "ChatSession",
    "DefaultSampler",
    "Draft",
    "DraftModel",
    "Generate",
    "GenerationChunk",
    "GenerationResult",
    "GenerationStats",
    "Perplexity",
    "PromptLookup",
    "Response",
    "Sampler",
    "SamplingParams",
    "SpeculativeGenerate",
    "TokenLogprob",
    "generate",
    "generate_batch",
    "perplexity",
    "stream_generate",
]
