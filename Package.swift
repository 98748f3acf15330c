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
    exclude: ["Safetensors", "GGUF"].contains(name) ? ["FORMAT.md"] : [], swiftSettings: strict)
}

func library(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .target(name: name, dependencies: dependencies, path: "Sources/\(name)", swiftSettings: strict)
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
    format("Bytes", ["CSystem", "CXXHash", .target(name: "CNettle", condition: .when(platforms: [.linux]))]),
    format("JSON", ["Bytes"]),
    format("Tensors", ["Bytes"]),
    format("Safetensors", ["Bytes", "JSON", "Tensors"]),
    format("GGUF", ["Bytes", "JSON", "Tensors"]),

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
    library("Adapters", ["COpenBLAS", "Patterns", "Bytes", "JSON", "Tensors", "Safetensors", "Quantization"]),
    .target(
      name: "ArchitectureRules", path: "Sources/Architectures/Rules", exclude: ["contents.txt", "rules.txt"],
      cSettings: [.treatAllWarnings(as: .error)]),
    .target(
      name: "Architectures",
      dependencies: ["ArchitectureRules", "Bytes", "GGUF", "JSON", "Tensors"], path: "Sources/Architectures",
      exclude: [
        "Rules", "check.py", "contents.py", "generate.py", "looks.py", "presence.py", "sizes.py", "survey.py",
        "variants.py",
      ], swiftSettings: strict),
    library(
      "Pipeline",
      ["Bytes", "JSON", "Tensors", "Safetensors", "GGUF", "Patterns", "Quantization", "Adapters", "Architectures"]),
    .executableTarget(
      name: "nibble",
      dependencies: [
        "Pipeline", "Adapters", "Bytes", "JSON", "Tensors", "Safetensors", "GGUF", "Quantization", "Architectures",
      ],
      path: "Sources/nibble", swiftSettings: strict),

    // Tests mirror the targets.
    .target(name: "TestSupport", path: "Tests/TestSupport", swiftSettings: relaxed),
    tests("Bytes", ["Bytes"]),
    tests("JSON", ["JSON", "Bytes"]),
    tests("Tensors", ["Tensors", "Bytes"]),
    tests("Safetensors", ["Safetensors", "Tensors", "JSON", "Bytes"]),
    tests("GGUF", ["GGUF", "Tensors", "Bytes"]),
    tests("Quantization", ["Quantization", "Kernels"]),
    tests("Patterns", ["Patterns"]),
    tests("Adapters", ["Adapters", "COpenBLAS", "Quantization", "Safetensors", "Tensors", "JSON", "Bytes"]),
    tests("Architectures", ["Architectures", "GGUF", "JSON", "Tensors", "Bytes"]),
    tests("Pipeline", ["Pipeline", "GGUF", "Patterns", "Safetensors", "Tensors", "JSON", "Bytes", "Quantization"]),
    tests("Tool", ["Safetensors", "Tensors", "JSON", "Bytes"]),
  ],
  cxxLanguageStandard: .cxx17
)

// Some tests alone, so that they and what they import can be built optimized without the rest: see the Makefile.
if let chosen = Context.environment["NIBBLE_TESTS"] {
  let names = chosen.split(separator: ",").map(String.init)
  package.targets.removeAll { $0.type == .test && !names.contains($0.name) }
}
