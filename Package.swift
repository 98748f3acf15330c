// swift-tools-version: 6.2
import PackageDescription

let strict: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .strictMemorySafety(),
  .treatAllWarnings(as: .error),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .enableExperimentalFeature("Lifetimes"),
]

// Tests build bytes by hand and compare bits; they need not annotate each unsafe expression.
let relaxed: [SwiftSetting] = [.swiftLanguageMode(.v6), .treatAllWarnings(as: .error)]

func format(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
  .target(
    name: name, dependencies: dependencies, path: "Formats/\(name)",
    exclude: ["Safetensors", "GGUF", "PyTorch"].contains(name) ? ["FORMAT.md"] : [], swiftSettings: strict)
}

func library(_ name: String, _ dependencies: [Target.Dependency], exclude: [String] = []) -> Target {
  .target(
    name: name, dependencies: dependencies, path: "Sources/\(name)", exclude: exclude, swiftSettings: strict)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .testTarget(
    name: "\(name)Tests", dependencies: dependencies + ["TestSupport"], path: "Tests/\(name)",
    swiftSettings: relaxed)
}

let package = Package(
  name: "nibble",
  platforms: [.macOS(.v26)],
  products: [
    .executable(name: "nibble", targets: ["nibble"]),
    .library(name: "Safetensors", targets: ["Safetensors", "Tensors", "Bytes"]),
    .library(name: "Quantization", targets: ["Quantization"]),
  ],
  targets: [
    // Formats: bytes at rest.
    .target(
      name: "CXXHash", path: "Formats/CXXHash",
      cSettings: [.treatAllWarnings(as: .error)]),
    .target(name: "CSystem", path: "Formats/CSystem", cSettings: [.treatAllWarnings(as: .error)]),
    .systemLibrary(
      name: "CNettle", path: "Formats/CNettle", providers: [.apt(["nettle-dev"]), .brew(["nettle"])]),
    .systemLibrary(
      name: "CZstd", path: "Formats/CZstd", providers: [.apt(["libzstd-dev"]), .brew(["zstd"])]),
    format("Bytes", ["CSystem", "CXXHash", .target(name: "CNettle", condition: .when(platforms: [.linux]))]),
    format("JSON", ["Bytes"]),
    format("Tensors", ["Bytes"]),
    format("Safetensors", ["Bytes", "JSON", "Tensors"]),
    format("GGUF", ["Bytes", "Tensors"]),
    format("PyTorch", ["Bytes", "CZstd", "Tensors"]),

    // Sources: what is done with weights.
    .target(
      name: "Kernels", path: "Sources/Kernels",
      cxxSettings: [.treatAllWarnings(as: .error), .define("HWY_SHARED_DEFINE")],
      linkerSettings: [.linkedLibrary("hwy")]),
    library("Quantization", ["Kernels"]),
    .target(
      name: "COpenBLAS", path: "Sources/COpenBLAS", cSettings: [.treatAllWarnings(as: .error)],
      linkerSettings: [
        .linkedFramework("Accelerate", .when(platforms: [.macOS])), .linkedLibrary("dl", .when(platforms: [.linux])),
      ]),
    library("Patterns", []),
    library(
      "Adapters", ["Patterns", "COpenBLAS", "Quantization", "PyTorch", "Safetensors", "Tensors", "JSON", "Bytes"]),
    .target(
      name: "ArchitectureRules", path: "Sources/Architectures/Rules", exclude: ["contents.txt", "rules.txt"],
      cSettings: [.treatAllWarnings(as: .error)]),
    .target(
      name: "Architectures",
      dependencies: ["ArchitectureRules", "Patterns", "Tensors", "Bytes"], path: "Sources/Architectures",
      exclude: [
        "Rules", "check.py", "contents.py", "generate.py", "looks.py", "presence.py", "sizes.py", "survey.py",
        "variants.py",
      ], swiftSettings: strict),
    library("Console", ["Bytes"]),
    library("ModelFamilies", ["Architectures", "GGUF", "PyTorch", "Tensors", "JSON", "Bytes"]),
    library("Tokenizers", ["ModelFamilies", "GGUF", "JSON", "Bytes"]),
    library(
      "PackedWeights", ["ModelFamilies", "Architectures", "Patterns", "Quantization", "Tensors", "JSON", "Bytes"]),
    library(
      "Checkpoints",
      [
        "PackedWeights", "Tokenizers", "ModelFamilies", "Architectures", "Adapters", "Patterns", "Quantization", "GGUF",
        "PyTorch", "Safetensors", "Tensors", "JSON", "Bytes",
      ]),
    library(
      "Calibration", ["COpenBLAS", "Quantization", "Safetensors", "Tensors", "JSON", "Bytes"], exclude: ["METHOD.md"]),
    library(
      "Writing",
      [
        "Checkpoints", "PackedWeights", "Calibration", "ModelFamilies", "Architectures", "Console", "Quantization",
        "GGUF", "Safetensors", "Tensors", "JSON", "Bytes",
      ]),

    // Leaves beside each other, and what joins them.
    library("TypeMixtures", ["Checkpoints", "Patterns", "GGUF", "Tensors", "Bytes"]),
    library(
      "Comparison",
      ["Checkpoints", "PackedWeights", "Console", "Patterns", "Quantization", "GGUF", "Tensors", "JSON", "Bytes"]),
    library(
      "Extraction",
      [
        "Comparison", "Writing", "Checkpoints", "PackedWeights", "Architectures", "Adapters", "Console", "Patterns",
        "Quantization", "Tensors", "JSON", "Bytes",
      ]),
    library(
      "TrainingMemory",
      [
        "Checkpoints", "PackedWeights", "ModelFamilies", "Architectures", "Adapters", "Console", "Quantization", "GGUF",
        "Tensors", "JSON", "Bytes",
      ]),
    library(
      "HeaderEditing",
      [
        "Writing", "Checkpoints", "Console", "Patterns", "GGUF", "Safetensors", "Tensors", "JSON", "Bytes",
      ]),
    library(
      "Commands",
      [
        "Comparison", "Calibration", "TypeMixtures", "Writing", "Checkpoints", "PackedWeights", "Tokenizers",
        "ModelFamilies", "Architectures", "Adapters", "Console", "Patterns", "Quantization", "GGUF", "Safetensors",
        "Tensors", "JSON", "Bytes",
      ]),
    library(
      "Verification",
      [
        "Commands", "HeaderEditing", "TypeMixtures", "Writing", "Checkpoints", "PackedWeights", "Tokenizers",
        "Architectures", "Console", "Quantization", "GGUF", "PyTorch", "Safetensors", "Tensors", "JSON", "Bytes",
      ]),
    .executableTarget(
      name: "nibble",
      dependencies: [
        "Verification", "Commands", "TrainingMemory", "Extraction", "HeaderEditing", "Comparison", "TypeMixtures",
        "Writing", "Adapters", "Console", "Patterns", "Quantization", "GGUF", "JSON", "Bytes",
      ],
      path: "Sources/nibble", swiftSettings: strict),

    // Tests mirror the targets.
    .target(
      name: "TestSupport", dependencies: ["Bytes", "Tensors"], path: "Tests/TestSupport", swiftSettings: relaxed),
    .target(
      name: "FamilySupport", dependencies: ["ModelFamilies", "GGUF", "Tensors", "JSON", "Bytes"],
      path: "Tests/FamilySupport", swiftSettings: relaxed),
    tests("Bytes", ["Bytes"]),
    tests("JSON", ["JSON", "Bytes"]),
    tests("Tensors", ["Tensors", "Bytes"]),
    tests("Safetensors", ["Safetensors", "Tensors", "JSON", "Bytes"]),
    tests("GGUF", ["GGUF", "Tensors", "Bytes"]),
    tests("PyTorch", ["PyTorch", "CZstd", "Tensors", "Bytes"]),
    tests("Quantization", ["Quantization", "Kernels"]),
    tests("Patterns", ["Patterns"]),
    tests("Adapters", ["Adapters", "Quantization", "Safetensors", "Tensors", "JSON", "Bytes"]),
    tests("Architectures", ["Architectures", "Patterns", "Tensors", "Bytes"]),
    tests("Tokenizers", ["Tokenizers", "GGUF", "JSON", "Bytes"]),
    tests("ModelFamilies", ["FamilySupport", "ModelFamilies", "GGUF", "PyTorch", "Tensors", "JSON", "Bytes"]),
    tests("PackedWeights", ["PackedWeights", "Quantization", "JSON", "Bytes"]),
    tests(
      "Checkpoints",
      [
        "Commands", "Checkpoints", "PackedWeights", "ModelFamilies", "Adapters", "Quantization", "Safetensors",
        "Tensors", "JSON", "Bytes",
      ]),
    tests(
      "Writing",
      [
        "Writing", "Checkpoints", "ModelFamilies", "Architectures", "Console", "Quantization", "Safetensors", "Tensors",
        "JSON", "Bytes",
      ]),
    tests("Calibration", ["Calibration", "Quantization", "Safetensors", "Tensors", "Bytes"]),
    tests("TypeMixtures", ["TypeMixtures", "Patterns", "GGUF", "Tensors", "JSON", "Bytes"]),
    tests("Comparison", ["Comparison", "Quantization", "Tensors"]),
    tests("Verification", ["Verification", "Commands", "Quantization", "Safetensors", "Tensors", "JSON", "Bytes"]),
    tests("TrainingMemory", ["FamilySupport", "TrainingMemory", "ModelFamilies", "Tensors", "JSON", "Bytes"]),
    tests("HeaderEditing", ["Verification", "Commands", "HeaderEditing", "GGUF", "Safetensors", "JSON", "Bytes"]),
    tests("Commands", ["Verification", "Commands", "Comparison", "Writing", "Checkpoints", "Bytes"]),
    tests("Tool", ["Safetensors", "JSON", "Bytes"]),
  ],
  cxxLanguageStandard: .cxx17
)

// Some tests alone, so that they and what they import can be built optimized without the rest: see the Makefile.
if let chosen = Context.environment["NIBBLE_TESTS"] {
  let names = chosen.split(separator: ",").map(String.init)
  package.targets.removeAll { $0.type == .test && !names.contains($0.name) }
}
