"""llama.cpp's own tokenizer, through the C functions that its Python package carries."""

import ctypes
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
