import Adapters

/// A parameter of a model in training.
public struct TrainedParameter: Sendable {
  /// The name in transformers 5, which stacks a layer's experts whatever the checkpoint does.
  public let name: String
  public let shape: [Int]
  /// Nil outside of the layers.
  public let layer: Int?
  /// Nil for what PEFT's LoRA does not reach.
  public let adapter: Adapter?

  /// The tensor that its gradient needs, by which the gradient of the output is multiplied.
  public enum Input: Sendable {
    /// Saved anyway.
    case saved
    /// One for all parameters of the layer that give the same name.
    case shared(String, SavedTensor)
  }

  /// The LoRA factors of a parameter: rank × inputs and outputs × rank.
  public struct Adapter: Sendable {
    public enum Form: Sendable {
      /// A module: the adapter runs beside it.
      case linear
      /// A parameter without a module of its own: PEFT adds the factors' product to it and computes with the sum.
      case matrix(savesSum: Bool)
      /// The same for a stack of matrices, each with factors of its own.
      case stack
    }

    public let form: Form
    /// The names that `target_modules` has for it; either all of them are listed or none.
    public let names: [String]
    /// Columns of the first factor and rows of the second, for each rank.
    public let inputs: Int
    public let outputs: Int
  }

  public let input: Input?
}
