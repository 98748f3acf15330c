"""The configurations under which a class is looked at."""

import copy
import re

import transformers
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
            try:
                setattr(part, attribute, layers)
            except NotImplementedError:
                continue  # Funnel and ProphetNet count in other attributes.
            for name, value in list(vars(part).items()):
                if isinstance(value, list) and len(value) == count:
                    setattr(part, name, value[:layers])
    return config


COMPASS_ROPE = {kind: {"rope_type": "default", "rope_theta": 1e4} for kind in ("full_attention", "sliding_attention")}
DIFFUSION_GEMMA_EXPERTS = {"num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 704}
QWEN4_INDEXER = {
    "indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 64, "indexer_budget": 2048,
    "indexer_compress_ratio": 32,
}

# Defaults that make no model, by configuration class: arguments to give it, and behind dots, attributes to
# set afterwards, of it or of its parts.
REQUIRED = {
    "AutoformerConfig": {"prediction_length": 24},
    "AyaVisionConfig": {"vision_config.num_attention_heads": 16},
    "BeitConfig": {"out_indices": [3, 5, 7, 11]},
    "BridgeTowerConfig": {"contrastive_hidden_size": 512, "logit_scale_init_value": 2.6592},
    "ChameleonConfig": {"vocabulary_map": {"<image>": 8711}},
    "CohereCompassConfig": {"text_config.rope_parameters": COMPASS_ROPE},
    "CohereCompassTextConfig": {"rope_parameters": COMPASS_ROPE},
    "ConvNextConfig": {"hidden_sizes": [96, 192, 384, 768]},
    "ConvNextV2Config": {"hidden_sizes": [96, 192, 384, 768]},
    "DbrxConfig": {"attn_config.rope_theta": 10000.0},
    "DeepseekOcr2Config": {"text_config.mlp_layer_types": ["dense"] + ["sparse"] * 31},
    "DeepseekOcr2TextConfig": {"mlp_layer_types": ["dense"] + ["sparse"] * 31},
    "DiffusionGemmaConfig": {f"text_config.{name}": value for name, value in DIFFUSION_GEMMA_EXPERTS.items()},
    "DiffusionGemmaTextConfig": DIFFUSION_GEMMA_EXPERTS,
    "Dots1Config": {"n_routed_experts": 8, "n_shared_experts": 1},
    "Emu3Config": {"vocabulary_map": {"<image>": 8711}},
    "EsmConfig": {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32},
    "FocalNetConfig": {"hidden_sizes": [192, 384, 768, 768]},
    "Granite4VisionConfig": {"downsample_rate": "4/8", "deepstack_layer_map": [[1, 2], [3, 4]]},
    "HunYuanDenseV1Config": {"head_dim": 128},
    "HunYuanMoEV1Config": {"head_dim": 128},
    "HunYuanVLConfig": {"text_config.head_dim": 128},
    "HunYuanVLTextConfig": {"head_dim": 128},
    "InformerConfig": {"prediction_length": 24},
    "Lfm2MoeConfig": {"layer_types": ["conv", "full_attention"] * 16},
    "MinistralConfig": {"head_dim": 128},
    "MoonshineStreamingConfig": {"num_key_value_heads": 8},
    "MoshiConfig": {"audio_vocab_size": 2048},
    "NemotronConfig": {"num_key_value_heads": 8},
    "PerceptionLMConfig": {"vision_config.model_args": {"embed_dim": 1024}},
    "Qwen3OmniMoeConfig": {
        "talker_config.text_config.shared_expert_intermediate_size": 512, "talker_config.spatial_merge_size": 2,
    },
    "Qwen3OmniMoeTalkerTextConfig": {"shared_expert_intermediate_size": 512},
    "Qwen3OmniMoeTalkerConfig": {"spatial_merge_size": 2, "text_config.shared_expert_intermediate_size": 512},
    "Qwen4ExpConfig": {f"text_config.{name}": value for name, value in QWEN4_INDEXER.items()},
    "Qwen4ExpTextConfig": {f".{name}": value for name, value in QWEN4_INDEXER.items()},
    "ReformerConfig": {"is_decoder": True},
    "T5GemmaConfig": {"is_encoder_decoder": True},
    "TimeSeriesTransformerConfig": {"prediction_length": 24},
    "VitMatteConfig": {"fusion_hidden_sizes": [256, 128, 64, 32]},
    "Wav2Vec2BertConfig": {"vocab_size": 32},
    "Wav2Vec2ConformerConfig": {"vocab_size": 32},
}

# The same for classes whose needs differ from those of others with the same configuration.
REQUIRED_BY_CLASS = {
    "ReformerForMaskedLM": {"is_decoder": False},
    "ReformerForSequenceClassification": {"is_decoder": False},
    "T5GemmaEncoderModel": {"is_encoder_decoder": False},
    "ViltForImagesAndTextClassification": {"modality_type_vocab_size": 3, "num_images": 2},
}

# What changes which layers there are. Each entry is tried on every class whose configuration (or a part of it)
# has all of these attributes; a function makes the value from the default one. Found by flipping, one after
# the other, every boolean attribute and those that count experts, ranks and embedding sizes.
ALTERNATIVES = [
    {"add_adapter": True, "use_intermediate_ffn_before_adapter": True},
    {"add_cross_attention": True},
    {"adapter_attn_dim": 16},
    {"axial_pos_embds": False},
    {"bypass_transformer": True},
    {"embedding_size": 64},
    {"first_k_dense_replace": 2},
    {"is_gated_act": lambda value: not value},
    {"is_moe": True},
    {"learn_initial_query": True},
    {"legacy": False},
    {"mlp_layer_types": lambda value: value and ["dense"] * len(value)},
    {"mlp_layer_types": lambda value: value and ["sparse"] * len(value)},
    {"mlp_only_layers": [0]},
    {"num_shared_experts": 1},
    {"pos_att_type": ["c2p", "p2c"], "relative_attention": True},
    {"pos_att_type": ["c2p", "p2c"], "relative_attention": True, "share_att_key": False},
    {"projection_dim": 64},
    {"q_lora_rank": lambda value: None if value else 64},
    {"self_attn": True},
    {"share_att_key": False},
    {"share_cross_modal_transformer_layers": False},
    {"share_embedding": False},
    {"shared_intermediate_size": 64},
    {"two_stage": lambda value: not value},
    {"use_fov_model": True},
    {"use_gated_mlp": True},
    {"use_prompt": True},
    {"use_qformer_text_input": True},
    {"use_resampler": True},
    {"use_swiglu_ffn": True},
    {"use_task_id": True},
    {"vision_use_head": lambda value: not value},
    {"with_box_refine": True},
    {"with_box_refine": True, "two_stage": True},
    {"word_embed_proj_dim": 64},
]
EACH_LAYER = {
    "GraniteMoeHybridConfig": ("attention", "mamba"),
    "Lfm2Config": ("conv", "full_attention"),
    "Lfm2VlConfig": ("conv", "full_attention"),
}

# Models of a language model and a tower of any kind: parts to put in place of the default ones, by class.
ANY_LANGUAGE_MODEL = r"(Llava|VipLlava|InternVL|Idefics[23]|AyaVision|GotOcr2|Mistral3|VideoLlava|Ovis2).*"
PARTS = [
    (ANY_LANGUAGE_MODEL, "text_config", "Phi3Config", {}),
    (r"(Llava|InternVL|Mistral3).*", "text_config", "Qwen3MoeConfig", {}),
    (r"(Blip2|InstructBlip).*", "text_config", "T5Config", {"feed_forward_proj": "gated-gelu"}),
    (r"(Blip2|InstructBlip).*", "text_config", "LlamaConfig", {}),
    (r"(Blip2|InstructBlip).*", "text_config", "OPTConfig", {}),
    (r"(Llava|VipLlava|AyaVision|VideoLlava).*", "vision_config", "SiglipVisionConfig", {}),
    (r"(Llava|VipLlava|AyaVision|VideoLlava).*", "vision_config", "CLIPVisionConfig", {}),
]
# The same for the models of an encoder and a decoder.
PAIRS = {
    "EncoderDecoderConfig": [
        ("BertConfig", "BertConfig"), ("RobertaConfig", "RobertaConfig"), ("BertConfig", "GPT2Config"),
    ],
    "SpeechEncoderDecoderConfig": [
        ("Wav2Vec2Config", "BertConfig"), ("Wav2Vec2Config", "MBartConfig"), ("Wav2Vec2Config", "Speech2Text2Config"),
        ("HubertConfig", "BertConfig"), ("Wav2Vec2Config", "BartConfig"),
    ],
    "VisionEncoderDecoderConfig": [
        ("ViTConfig", "TrOCRConfig"), ("DeiTConfig", "TrOCRConfig"), ("DonutSwinConfig", "MBartConfig"),
        ("ViTConfig", "GPT2Config"), ("ViTConfig", "BertConfig"), ("ViTConfig", "RobertaConfig"),
        ("SwinConfig", "BertConfig"), ("DeiTConfig", "RobertaConfig"), ("BeitConfig", "RobertaConfig"),
    ],
}


def default(cls):
    needs = REQUIRED.get(cls.config_class.__name__, {}) | REQUIRED_BY_CLASS.get(cls.__name__, {})
    config = cls.config_class(**{path: value for path, value in needs.items() if "." not in path})
    for path, value in needs.items():
        if "." in path:
            assign(config, path, value)
    return config


def assign(config, path, value):
    *parts, name = path.split(".")
    for part in filter(None, parts):
        config = getattr(config, part)
    setattr(config, name, value)


def configurations(cls):
    """Functions that make one configuration each, the default one first."""
    pairs = PAIRS.get(cls.config_class.__name__)
    if pairs:
        for encoder, decoder in pairs:
            yield lambda encoder=encoder, decoder=decoder: paired(cls, encoder, decoder)
        return
    yield lambda: default(cls)
    base = shallow(default(cls))
    for alternative in ALTERNATIVES:
        parts = [part for part in sub_configurations(base) if all(name in vars(part) for name in alternative)]
        if parts:
            yield lambda alternative=alternative: altered(base, alternative)
    for kind in EACH_LAYER.get(type(base).__name__, ()):
        yield lambda kind=kind: altered(base, {"layer_types": lambda value: value and [kind] * len(value)})
    for classes, attribute, name, arguments in PARTS:
        if re.fullmatch(classes, cls.__name__) and hasattr(base, attribute):
            yield lambda change=(attribute, name, arguments): with_part(base, *change)


def altered(config, alternative):
    config = copy.deepcopy(config)
    for part in sub_configurations(config):
        if all(name in vars(part) for name in alternative):
            for name, value in alternative.items():
                setattr(part, name, value(getattr(part, name)) if callable(value) else value)
    return config


def with_part(config, attribute, name, arguments):
    config = copy.deepcopy(config)
    setattr(config, attribute, shallow(getattr(transformers, name)(**arguments)))
    return config


def paired(cls, encoder, decoder):
    encoder, decoder = (shallow(getattr(transformers, name)()) for name in (encoder, decoder))
    return cls.config_class.from_encoder_decoder_configs(encoder, decoder)
