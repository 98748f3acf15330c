"""The configurations under which a class is looked at."""

import copy

from transformers import PreTrainedConfig

LAYER_COUNTS = (
    "num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers",
    "num_encoder_layers", "num_decoder_layers", "depth",
)


def sub_configurations(config):
    yield config
    for value in list(vars(config).values()):
        if isinstance(value, PreTrainedConfig):
            yield from sub_configurations(value)


def with_ties(config, ties):
    """A copy in which every part ties its embeddings, or none does."""
    config = copy.deepcopy(config)
    for part in sub_configurations(config):
        part.tie_word_embeddings = ties
    return config


def shallow(config, layers=6):
    """A copy with fewer layers, to build it faster; lists with one entry for each layer are cut as well."""
    config = copy.deepcopy(config)
    for part in sub_configurations(config):
        for attribute in LAYER_COUNTS:
            count = getattr(part, attribute, None)
            if type(count) is not int or count <= layers:
                continue
            for name, value in list(vars(part).items()):
                if isinstance(value, list) and len(value) == count:
                    setattr(part, name, value[:layers])
            setattr(part, attribute, layers)
    return config


def configurations(cls):
    """The default configuration first."""
    yield cls.config_class()
