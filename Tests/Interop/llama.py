"""llama.cpp itself, in the Python package that carries it: its tokenizer through C functions, its server as a class."""

import ctypes
import dataclasses
import functools
import pathlib

import xllamacpp.xllamacpp


class ModelParameters(ctypes.Structure):
    """llama_model_params, of which only one field is set."""

    _fields_ = [
        ("pointers", ctypes.c_void_p * 2),
        ("integers", ctypes.c_int32 * 6),
        ("more_pointers", ctypes.c_void_p * 4),
        ("vocab_only", ctypes.c_bool),
        ("rest", ctypes.c_uint8 * 443),
    ]


@functools.cache
def library():
    """The functions used here, with their types; silent."""
    functions = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
    functions.llama_model_default_params.restype = ModelParameters
    functions.llama_model_load_from_file.argtypes = [ctypes.c_char_p, ModelParameters]
    functions.llama_model_load_from_file.restype = ctypes.c_void_p
    functions.llama_model_get_vocab.argtypes = [ctypes.c_void_p]
    functions.llama_model_get_vocab.restype = ctypes.c_void_p
    functions.llama_model_free.argtypes = [ctypes.c_void_p]
    functions.llama_tokenize.argtypes = [
        ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32, ctypes.c_bool, ctypes.c_bool,
    ]
    functions.llama_log_set.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    functions.silence = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
    functions.llama_log_set(ctypes.cast(functions.silence, ctypes.c_void_p), None)
    functions.llama_backend_init()
    return functions


class Vocabulary:
    """The vocabulary of a GGUF file."""

    def __init__(self, path: pathlib.Path):
        parameters = library().llama_model_default_params()
        parameters.vocab_only = True
        self.model = library().llama_model_load_from_file(str(path).encode(), parameters)
        assert self.model, f"llama.cpp does not load {path}"
        self.vocabulary = library().llama_model_get_vocab(self.model)

    def encode(self, text: str, special: bool = True) -> list[int]:
        """The ids of a text, with what the model puts around it when `special`; names of special tokens count."""
        data = text.encode()
        ids = (ctypes.c_int32 * (len(data) + 16))()
        count = library().llama_tokenize(self.vocabulary, data, len(data), ids, len(ids), special, True)
        assert count >= 0
        return list(ids[:count])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        library().llama_model_free(self.model)


@dataclasses.dataclass
class Answer:
    """`ids` have the end mark too, if it came to that; `logarithms` are those of their probabilities."""

    text: str
    ids: list[int]
    logarithms: list[float]


class Server:
    """A GGUF file that answers."""

    def __init__(self, path: pathlib.Path, context: int = 512, adapter: pathlib.Path | None = None):
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx, parameters.n_parallel = context, 1
        # Two threads of so small a model wait for each other.
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
        parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        # Which has numbers of 16 bits in it; without, logarithms of probabilities are 3e-5 from those of transformers.
        parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.warmup, parameters.verbosity, parameters.cache_ram_mib = False, -1, 0
        if adapter:
            parameters.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
        self.server = xllamacpp.Server(parameters)

    def answer(self, prompt: str, limit: int) -> Answer:
        """Greedily."""
        reply = self.server.handle_completions({
            "prompt": prompt, "n_predict": limit, "temperature": 0, "samplers": ["top_k"], "top_k": 1, "logprobs": 1,
            "cache_prompt": False,
        })
        choice, = reply["choices"]
        tokens = choice["logprobs"]["content"]
        return Answer(choice["text"], [token["id"] for token in tokens], [token["logprob"] for token in tokens])
