"""What each kind of model has besides the usual: the model as it is passes, and no loader takes it without or otherwise."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from test_contents import changed, without
from tool import REJECTED

WIDTHS = dict(hidden_size=32, intermediate_size=64, num_attention_heads=4, vocab_size=96)
SMALL = WIDTHS | dict(num_hidden_layers=2, num_key_value_heads=2)
BERT = WIDTHS | dict(num_hidden_layers=2, max_position_embeddings=32)
T5 = dict(vocab_size=96, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
OPT = dict(
    vocab_size=96, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=32,
    word_embed_proj_dim=16)
BART = dict(
    vocab_size=96, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
    encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=32)
NEXT = SMALL | dict(
    num_hidden_layers=4, head_dim=8, linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2,
    linear_num_value_heads=4, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=16,
    shared_expert_intermediate_size=16)
JAMBA = SMALL | dict(
    num_hidden_layers=4, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=1, num_experts=2,
    num_experts_per_tok=1, mamba_dt_rank=4, mamba_d_state=4, use_mamba_kernels=False)
BAMBA = SMALL | dict(
    attn_layer_indices=[1], mamba_n_heads=8, mamba_d_head=8, mamba_d_state=4, mamba_n_groups=1)
DEEPSEEK = SMALL | dict(
    num_key_value_heads=4, moe_intermediate_size=16, n_routed_experts=4, num_experts_per_tok=1, n_group=1, topk_group=1,
    first_k_dense_replace=0, kv_lora_rank=8, q_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=4, v_head_dim=8)
IMAGE = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=16, patch_size=8)
TOWERS = dict(text_config=BERT, vision_config=IMAGE)
GPT2 = dict(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=32)


def create(name: str, settings: dict, config: str):
    return getattr(transformers, name)(getattr(transformers, config)(**settings)).to(torch.bfloat16)


# Class, its configuration's class and settings.
MODELS = {
    "llama-classifier": ("LlamaForSequenceClassification", "LlamaConfig", SMALL | dict(num_labels=3)),
    "bert-classifier": ("BertForSequenceClassification", "BertConfig", BERT),
    "bert-pretraining": ("BertForPreTraining", "BertConfig", BERT),
    "qwen3-next": ("Qwen3NextForCausalLM", "Qwen3NextConfig", NEXT),
    "jamba": ("JambaForCausalLM", "JambaConfig", JAMBA),
    "bamba": ("BambaForCausalLM", "BambaConfig", BAMBA),
    "t5-gated": ("T5ForConditionalGeneration", "T5Config", T5 | dict(feed_forward_proj="gated-gelu")),
    "t5-encoder": ("T5EncoderModel", "T5Config", T5),
    "deepseek": ("DeepseekV3ForCausalLM", "DeepseekV3Config", DEEPSEEK),
    "mamba": ("MambaForCausalLM", "MambaConfig", dict(vocab_size=96, hidden_size=32, num_hidden_layers=2, state_size=4)),
    "opt": ("OPTForCausalLM", "OPTConfig", OPT),
    "bart": ("BartForConditionalGeneration", "BartConfig", BART),
    "marian": ("MarianMTModel", "MarianConfig", BART | dict(decoder_vocab_size=96, pad_token_id=0)),
    "modernbert": ("ModernBertForMaskedLM", "ModernBertConfig", BERT | dict(pad_token_id=0)),
    "stablelm": ("StableLmForCausalLM", "StableLmConfig", SMALL | dict(qk_layernorm=True)),
    "gpt-oss": ("GptOssForCausalLM", "GptOssConfig", SMALL | dict(num_local_experts=2, num_experts_per_tok=1)),
    "clip": ("CLIPModel", "CLIPConfig", TOWERS),
    "siglip": ("SiglipModel", "SiglipConfig", TOWERS),
    "vit": ("ViTForImageClassification", "ViTConfig", IMAGE | dict(num_labels=3)),
    "gpt2-heads": ("GPT2DoubleHeadsModel", "GPT2Config", GPT2),
    # Without a table of positions, without what comes after the layers, and with two vocabularies.
    "esm-rotary": ("EsmForMaskedLM", "EsmConfig", BERT | dict(
        pad_token_id=1, mask_token_id=32, position_embedding_type="rotary")),
    "mobilevit": ("MobileViTForSemanticSegmentation", "MobileViTConfig", {}),
    "marian-apart": ("MarianMTModel", "MarianConfig", BART | dict(
        decoder_vocab_size=48, pad_token_id=0, share_encoder_decoder_embeddings=False, tie_word_embeddings=False)),
}
# What is left out, or has one row more; in older names it is missed by today's.
RENAMED = {"vit.encoder.layer.1.intermediate.dense.weight": "vit.layers.1.mlp.fc1.weight"}
MISSING = [
    ("bert-classifier", "bert.pooler.dense.weight"),
    ("bert-pretraining", "cls.predictions.transform.dense.weight"),
    ("jamba", "model.layers.0.mamba.conv1d.bias"),
    ("t5-gated", "decoder.block.1.layer.2.DenseReluDense.wi_1.weight"),
    ("t5-encoder", "encoder.block.1.layer.1.DenseReluDense.wi.weight"),
    ("deepseek", "model.layers.1.mlp.gate.e_score_correction_bias"),
    ("mamba", "backbone.layers.1.mixer.conv1d.bias"),
    ("modernbert", "model.layers.1.attn_norm.weight"),
    ("stablelm", "model.layers.1.self_attn.q_layernorm.norms.3.weight"),
    ("clip", "vision_model.encoder.layers.1.mlp.fc1.weight"),
    ("siglip", "text_model.encoder.layers.1.mlp.fc1.weight"),
    ("vit", "vit.encoder.layer.1.intermediate.dense.weight"),
    ("marian", "model.decoder.layers.1.fc1.weight"),
    ("gpt2-heads", "transformer.h.1.mlp.c_fc.weight"),
]
RESHAPED = [
    ("llama-classifier", "score.weight"),
    ("bert-classifier", "classifier.weight"),
    ("qwen3-next", "model.layers.3.self_attn.k_proj.weight"),
    ("jamba", "model.layers.1.self_attn.q_proj.weight"),
    ("bamba", "model.layers.1.self_attn.v_proj.weight"),
    ("t5-gated", "encoder.block.0.layer.1.DenseReluDense.wi_0.weight"),
    ("deepseek", "model.layers.1.mlp.gate.e_score_correction_bias"),
    ("opt", "model.decoder.project_in.weight"),
    ("opt", "model.decoder.embed_positions.weight"),
    ("bart", "model.encoder.embed_positions.weight"),
    ("modernbert", "model.layers.1.mlp.Wi.weight"),
    ("stablelm", "model.layers.0.self_attn.k_layernorm.norms.1.weight"),
    ("vit", "classifier.weight"),
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a model, made when it is first asked for."""
    folders = {}

    def folder(name: str):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp("members") / name
            cls, config, settings = MODELS[name]
            create(cls, settings, config).save_pretrained(folders[name])
        return folders[name]

    return folder


def longer(name: str):
    def change(tensors):
        tensors[name] = torch.cat([tensors[name], tensors[name][:1]])
    return change


@pytest.mark.parametrize("name", MODELS)
def test_as_it_is(name, saved, nibble, tmp_path):
    nibble.verify(saved(name))
    assert not nibble.json("convert", saved(name), "-o", tmp_path / "out")["warnings"]


@pytest.mark.parametrize("name, tensor", MISSING)
def test_missing(name, tensor, saved, nibble, tmp_path):
    assert tensor in load_file(saved(name) / "model.safetensors")
    broken = changed(saved(name), tmp_path / "broken", without(tensor))
    _, loading = getattr(transformers, MODELS[name][0]).from_pretrained(broken, output_loading_info=True)
    assert loading["missing_keys"]
    error = nibble.json("convert", broken, "-o", tmp_path / "out", expect=REJECTED)["error"]
    assert error["tensor"] == RENAMED.get(tensor, tensor) and "missing" in error["message"], error


@pytest.mark.parametrize("name, tensor", RESHAPED)
def test_another_shape(name, tensor, saved, nibble, tmp_path):
    broken = changed(saved(name), tmp_path / "broken", longer(tensor))
    with pytest.raises(RuntimeError, match="mismatched"):
        getattr(transformers, MODELS[name][0]).from_pretrained(broken)
    error = nibble.json("convert", broken, "-o", tmp_path / "out", expect=REJECTED)["error"]
    assert error["tensor"] == tensor and "by config.json" in error["message"], error


def test_labels(saved, nibble, tmp_path):
    """As many as config.json names, by itself two."""
    two = changed(saved("llama-classifier"), tmp_path / "two", lambda t: t.update({"score.weight": t["score.weight"][:2]}))
    config = json.loads((two / "config.json").read_text())
    for names in (("id2label", "label2id"), ("id2label", "label2id", "num_labels")):
        (two / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k not in names}))
        transformers.LlamaForSequenceClassification.from_pretrained(two)
        nibble.verify(two)
    (two / "config.json").write_text(json.dumps(config | {"id2label": None, "num_labels": 3}))
    nibble.json("convert", two, "-o", tmp_path / "out", expect=REJECTED)


def test_length_of_heads_that_is_not_stated(saved, nibble, tmp_path):
    """What the class takes for it."""
    whole = changed(saved("gpt-oss"), tmp_path / "whole")
    config = json.loads((whole / "config.json").read_text())
    assert config.pop("head_dim") == 64
    (whole / "config.json").write_text(json.dumps(config))
    nibble.verify(whole)
    tensor = "model.layers.1.self_attn.k_proj.weight"
    broken = changed(whole, tmp_path / "broken", longer(tensor))
    error = nibble.json("convert", broken, "-o", tmp_path / "out", expect=REJECTED)["error"]
    assert error["tensor"] == tensor, error


@pytest.mark.parametrize("cls", ["T5", "MT5", "UMT5", "LongT5"])
def test_ties_that_are_not_stated(cls, nibble, tmp_path):
    """transformers 5 ties T5's embeddings whatever config.json says, which stands for another thing there."""
    model = tmp_path / "model"
    create(f"{cls}ForConditionalGeneration", T5, f"{cls}Config").save_pretrained(model)
    weights = load_file(model / "model.safetensors")
    save_file({k: w for k, w in weights.items() if k != "lm_head.weight"}, model / "model.safetensors", {"format": "pt"})
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    _, loading = getattr(transformers, f"{cls}ForConditionalGeneration").from_pretrained(model, output_loading_info=True)
    assert not loading["missing_keys"]
    warnings = nibble.json("convert", model, "-o", tmp_path / "out")["warnings"]
    assert len(warnings) == 1 and "ties it all the same" in warnings[0], warnings
