"""The configurations under which a class is looked at."""

import copy

from transformers import PreTrainedConfig


def sub_configurations(config):
    yield config
    for value in vars(config).values():
        if isinstance(value, PreTrainedConfig):
            yield from sub_configurations(value)


def with_tie(config, ties):
    """A copy in which every part ties its embeddings, or none does; None leaves the defaults."""
    config = copy.deepcopy(config)
    if ties is not None:
        for part in sub_configurations(config):
            part.tie_word_embeddings = ties
    return config


def configurations(cls):
    yield cls.config_class()
