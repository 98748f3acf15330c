extension Family {
  /// Every family that is converted. Where several share a GGUF architecture, the first that a file fits is what the
  /// file becomes on the way back.
  public static let all: [Family] = [
    mixtral, llama, mistral, qwen2, qwen2MoE, qwen3, qwen3MoE, gemma, gemma2, gemma3, phi3, starcoder2, gpt2, granite,
    olmo2, smolLM3,
  ]
}
