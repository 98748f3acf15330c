import Foundation
import TestSupport
import Testing

/// The usage examples of README.md, compiled as they stand and run.
///
/// They are built with the modules of the test build: a package of their own would take minutes for the
/// same answer.
@Suite struct ReadmeTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  static let build = URL(fileURLWithPath: Tool.build).resolvingSymlinksInPath().path
  static let needsBuild = "needs the Swift compiler and the modules that the tests are built with"
  static let canBuild =
    Machine.program("swiftc") != nil
    && FileManager.default.fileExists(atPath: build + "/Modules/Safetensors.swiftmodule")

  /// The fenced block behind `<!-- compiled: NAME -->`.
  private func example(_ name: String) throws -> String {
    let text = try String(contentsOfFile: Tool.repository + "/README.md", encoding: .utf8)
    let parts = text.components(separatedBy: "<!-- compiled: \(name) -->\n```swift\n")
    try #require(parts.count == 2, "README.md has no example of \(name), or several")
    return try #require(parts[1].components(separatedBy: "\n```").first) + "\n"
  }

  /// Compiles an example against one library product and gives the path of the program.
  private func compile(_ name: String, _ targets: [String]) throws -> String {
    let source = try directory.write("main.swift", Array(try example(name).utf8))
    var command = [
      try #require(Machine.program("swiftc")), "-swift-version", "6", "-o", directory.path("example"), source,
    ]
    command += ["-I", Self.build + "/Modules"]
    for target in targets {
      let folder = "\(Self.build)/\(target).build"
      let map = folder + "/module.modulemap"
      if FileManager.default.fileExists(atPath: map) { command += ["-Xcc", "-fmodule-map-file=\(map)"] }
      command += try FileManager.default.contentsOfDirectory(atPath: folder).filter { $0.hasSuffix(".o") }.map {
        folder + "/" + $0
      }
    }
    command += ["-Xcc", "-fmodule-map-file=\(Tool.repository)/Formats/CNettle/module.modulemap"]
    #if os(Linux)
      command += ["-lhwy", "-lnettle", "-lstdc++", "-lm"]
    #else
      for folder in ["/opt/homebrew/lib", "/usr/local/lib"] { command += ["-L", folder] }
      command += ["-lhwy", "-lc++"]
    #endif
    let compiled = try ToolProcess(command, output: .captured, error: .captured).wait(limit: 120)
    try #require(compiled.status == 0, "\(compiled.error)\(compiled.output)")
    return directory.path("example")
  }

  @Test(.enabled(if: canBuild, "\(needsBuild)"))
  func safetensors() throws {
    let text = try example("Safetensors")
    #expect((6...14).contains(text.split(separator: "\n").count))
    let program = try compile("Safetensors", ["Safetensors", "Tensors", "JSON", "Bytes", "CXXHash", "CSystem"])
    let file = try directory.write("small.safetensors", SafetensorsBuilder.small.bytes)
    let run = try ToolProcess([program, file], output: .captured, error: .captured).wait()
    #expect(run.status == 0, "\(run.error)")
    #expect(run.output.contains("a.weight F32 [2, 2]") && run.output.contains("b.weight BF16 [3]"), "\(run.output)")
  }

  @Test(.enabled(if: canBuild, "\(needsBuild)"))
  func quantization() throws {
    let text = try example("Quantization")
    #expect((6...14).contains(text.split(separator: "\n").count))
    let program = try compile("Quantization", ["Quantization", "Kernels"])
    let run = try ToolProcess([program], output: .captured, error: .captured).wait()
    #expect(run.status == 0, "\(run.error)")
    #expect(run.output.hasPrefix("2048 bytes of codes, 64 block maxima, largest error 0.0"), "\(run.output)")
  }

  /// A dependency may not use unsafe flags, and what the examples import must be a product.
  @Test func package() throws {
    let text = try String(contentsOfFile: Tool.repository + "/Package.swift", encoding: .utf8)
    #expect(!text.contains("unsafeFlags"))
    for name in ["Safetensors", "Quantization"] { #expect(text.contains(".library(name: \"\(name)\"")) }
  }

  /// The README's and the help's lists of exit codes are those of the tool.
  @Test func exitCodes() throws {
    let text = try String(contentsOfFile: Tool.repository + "/README.md", encoding: .utf8)
    let help = try Tool.run("--help").output
    for code in ["0", "1", "2", "65", "66", "69", "73", "74", "75"] {
      #expect(text.contains("\(code) ") && help.contains("\(code) "))
    }
  }
}
