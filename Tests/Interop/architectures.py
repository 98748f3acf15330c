"""Tiny models of many architectures, with random weights.

One row is one model: the class, its configuration, the dtype it is saved in. Widths are multiples of
32 where the model is run; a row with `run=False` has sizes that bitsandbytes' CPU matmul refuses, so
only its tensors are compared (Qwen2-MoE has a gate of width one). Rows are chosen so that between them come: tied and untied output
embeddings, biases, grouped and multi-query attention, fused projections, Conv1D, experts, routers,
relative position tables, vision and audio towers, classifiers, and all three float types.
"""

import dataclasses

import torch
import transformers


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    model: str
    config: dict
    dtype: torch.dtype = torch.bfloat16
    run: bool = True
    inputs: str = "tokens"
    quantizes: bool = True  # False: transformers leaves every module of the class as it is
    long: bool = False

    @property
    def model_class(self) -> type:
        return getattr(transformers, self.model)

    def create(self) -> transformers.PreTrainedModel:
        """Seeded by the row's name; every parameter is given values, biases and norms included."""
        torch.manual_seed(sum(self.name.encode()))
        config = self.model_class.config_class(**self.config)
        model = self.model_class(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.02)
        return model.to(self.dtype).eval()

    def example(self, config: transformers.PretrainedConfig, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """What one forward pass is given."""
        generator = torch.Generator().manual_seed(7)
        tokens = torch.randint(3, 90, (2, 12), generator=generator)
        match self.inputs:
            case "tokens":
                return {"input_ids": tokens}
            case "encoder-decoder":
                return {"input_ids": tokens, "decoder_input_ids": tokens[:, :5]}
            case "audio":
                features = torch.randn(1, 32, 64, generator=generator, dtype=torch.float32).to(dtype)
                return {"input_features": features, "decoder_input_ids": tokens[:1, :5]}
            case "image":
                return {"pixel_values": torch.randn(1, 3, 32, 32, generator=generator).to(dtype)}
            case "image-and-text":
                patches = torch.full((1, 4), config.image_token_id)
                return {
                    "input_ids": torch.cat([tokens[:1], patches], dim=1),
                    "pixel_values": torch.randn(1, 3, 32, 32, generator=generator).to(dtype),
                }
        raise ValueError(self.inputs)


def text(hidden: int = 64, layers: int = 2, heads: int = 4, **other) -> dict:
    """The spelling that most decoder configurations share."""
    return {
        "vocab_size": 96, "hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": 2, "max_position_embeddings": 64,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    } | other


F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
VISION = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "image_size": 32, "patch_size": 16,
}

CASES = [
    Case("llama", "LlamaForCausalLM", text()),
    Case("llama-tied-f16", "LlamaForCausalLM", text(tie_word_embeddings=True), F16),
    Case("llama-biases-f32", "LlamaForCausalLM", text(attention_bias=True, mlp_bias=True), F32),
    Case("llama-odd", "LlamaForCausalLM", text(hidden=60, heads=6, intermediate_size=77, vocab_size=97), run=False),
    Case("llama-classifier", "LlamaForSequenceClassification", text(num_labels=32)),
    Case("mistral", "MistralForCausalLM", text(head_dim=32, sliding_window=8)),
    Case("mixtral", "MixtralForCausalLM", text(num_local_experts=4, num_experts_per_tok=2)),
    Case("qwen2", "Qwen2ForCausalLM", text(tie_word_embeddings=True)),
    Case("qwen2-odd-f16", "Qwen2ForCausalLM", text(hidden=36, intermediate_size=50), F16, run=False),
    Case("qwen2-moe", "Qwen2MoeForCausalLM", text(**EXPERTS, shared_expert_intermediate_size=96), run=False),
    Case("qwen3", "Qwen3ForCausalLM", text(head_dim=32), F16),
    Case("qwen3-moe", "Qwen3MoeForCausalLM", text(**EXPERTS, head_dim=32)),
    Case("gemma", "GemmaForCausalLM", text(head_dim=16, tie_word_embeddings=True), F32),
    Case("gemma2", "Gemma2ForCausalLM", text(head_dim=32, sliding_window=8)),
    Case("gemma3-text", "Gemma3ForCausalLM", text(head_dim=32, sliding_window=8)),
    Case("phi", "PhiForCausalLM", text(), F16),
    Case("phi3", "Phi3ForCausalLM", text()),
    Case("gpt2", "GPT2LMHeadModel", {"vocab_size": 96, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    Case("gpt2-f32-odd", "GPT2LMHeadModel",
         {"vocab_size": 97, "n_embd": 60, "n_layer": 2, "n_head": 4, "n_inner": 90}, F32, run=False),
    Case("gpt-neox", "GPTNeoXForCausalLM", text(), F16),
    Case("gptj", "GPTJForCausalLM",
         {"vocab_size": 96, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "rotary_dim": 8}, F32),
    Case("opt", "OPTForCausalLM", text(ffn_dim=128, word_embed_proj_dim=64), F16),
    Case("bloom", "BloomForCausalLM", {"vocab_size": 96, "hidden_size": 64, "n_layer": 2, "n_head": 4}),
    Case("falcon", "FalconForCausalLM", text(multi_query=True), quantizes=False),
    Case("falcon-new", "FalconForCausalLM", text(new_decoder_architecture=True, num_kv_heads=2, bias=True), F32,
         quantizes=False),
    Case("starcoder2", "Starcoder2ForCausalLM", text()),
    Case("stablelm", "StableLmForCausalLM", text(use_qkv_bias=True)),
    Case("olmo2", "Olmo2ForCausalLM", text(), F32),
    Case("cohere", "CohereForCausalLM", text()),
    Case("granite", "GraniteForCausalLM", text(attention_bias=True)),
    Case("nemotron", "NemotronForCausalLM", text(head_dim=16)),
    Case("smollm3", "SmolLM3ForCausalLM", text()),
    Case("glm4", "Glm4ForCausalLM", text(head_dim=32)),
    Case("t5", "T5ForConditionalGeneration",
         {"vocab_size": 96, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4,
          "decoder_start_token_id": 0}, F32, inputs="encoder-decoder"),
    Case("t5-gated-f16", "T5ForConditionalGeneration",
         {"vocab_size": 96, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4,
          "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "decoder_start_token_id": 0},
         F16, inputs="encoder-decoder"),
    Case("bart", "BartForConditionalGeneration",
         {"vocab_size": 96, "d_model": 64, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
          "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128,
          "max_position_embeddings": 64}, inputs="encoder-decoder"),
    Case("whisper", "WhisperForConditionalGeneration",
         {"vocab_size": 96, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
          "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "num_mel_bins": 32,
          "max_source_positions": 32, "max_target_positions": 64, "pad_token_id": 0, "bos_token_id": 1,
          "eos_token_id": 2, "decoder_start_token_id": 1}, F16, inputs="audio"),
    Case("vit-classifier", "ViTForImageClassification", VISION | {"num_labels": 32}, F32, inputs="image"),
    Case("bert-classifier", "BertForSequenceClassification", text(num_labels=32), F32),
    Case("distilbert-classifier", "DistilBertForSequenceClassification",
         {"vocab_size": 96, "dim": 64, "hidden_dim": 128, "n_layers": 2, "n_heads": 4, "num_labels": 32}, F16),
    Case("llava", "LlavaForConditionalGeneration",
         {"vision_config": VISION | {"model_type": "clip_vision_model", "projection_dim": 64},
          "text_config": text() | {"model_type": "llama"}, "image_token_id": 95,
          "vision_feature_layer": -1}, inputs="image-and-text"),
    Case("gemma3", "Gemma3ForConditionalGeneration",
         {"vision_config": VISION, "text_config": text(head_dim=32, sliding_window=8), "mm_tokens_per_image": 4,
          "image_token_id": 95, "boi_token_id": 93, "eoi_token_id": 94}, inputs="image-and-text"),
    Case("phimoe", "PhimoeForCausalLM", text(num_local_experts=4, num_experts_per_tok=2), run=False, long=True),
    Case("olmoe", "OlmoeForCausalLM", text(num_experts=4, num_experts_per_tok=2), long=True),
    Case("granitemoe", "GraniteMoeForCausalLM", text(num_local_experts=4, num_experts_per_tok=2), run=False, long=True),
    Case("deepseek-v3", "DeepseekV3ForCausalLM",
         text(n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=64, n_group=1, topk_group=1,
              first_k_dense_replace=1, q_lora_rank=32, kv_lora_rank=32, qk_rope_head_dim=32, qk_nope_head_dim=32,
              v_head_dim=32, num_key_value_heads=4), run=False, long=True),
    Case("gpt-oss", "GptOssForCausalLM",
         text(num_local_experts=4, num_experts_per_tok=2, head_dim=32, sliding_window=8), run=False, long=True),
    Case("mpt", "MptForCausalLM",
         {"vocab_size": 96, "d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 64, "expansion_ratio": 2},
         long=True),
    Case("gpt-bigcode", "GPTBigCodeForCausalLM",
         {"vocab_size": 96, "n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 64}, long=True),
    Case("codegen", "CodeGenForCausalLM",
         {"vocab_size": 96, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "rotary_dim": 8}, F32, long=True),
    Case("gpt-neo", "GPTNeoForCausalLM",
         {"vocab_size": 96, "hidden_size": 64, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 64,
          "attention_types": [[["global", "local"], 1]]}, F16, long=True),
    Case("persimmon", "PersimmonForCausalLM", text(), long=True),
    Case("roberta-answers", "RobertaForQuestionAnswering", text(), F32, run=False, long=True),
    Case("mamba", "MambaForCausalLM",
         {"vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 16}, F32, run=False, long=True),
    Case("mt5", "MT5ForConditionalGeneration",
         {"vocab_size": 96, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4,
          "decoder_start_token_id": 0}, inputs="encoder-decoder", long=True),
    Case("qwen2-vl", "Qwen2VLForConditionalGeneration",
         {"text_config": text(rope_parameters={"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}),
          "vision_config": {"depth": 2, "embed_dim": 64, "hidden_size": 64, "num_heads": 4, "mlp_ratio": 2}},
         run=False, long=True),
]


def case(name: str) -> Case:
    return next(case for case in CASES if case.name == name)
