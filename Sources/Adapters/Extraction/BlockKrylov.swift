import Bytes
import COpenBLAS

/// The leading singular vectors of a large matrix whose singular values hardly decay, as those of an error of rounding:
/// block Krylov iteration (Musco and Musco 2015, arXiv:1504.05477), where subspace iteration takes several times as
/// many products.
///
/// Every block is orthonormalized against all before it, twice, or it would drown in their rounding.
struct BlockKrylov {
  let lapack: Lapack
  /// Singular vectors wanted.
  let rank: Int

  /// Reached only where convergence cannot be told.
  static let blockLimit = 64

  /// Vectors of a block: many make good products, few make good use of each.
  private var width: Int { rank <= 64 ? max(16, rank) : max(64, rank / 2) }

  /// - Parameter norm: ‖M‖ (Frobenius), roughly.
  /// - Returns: `rank` singular values and vectors, or as many as the matrix has: U `[rows, k]`, Vᵀ `[k, columns]`.
  func decompose(
    _ matrix: FloatMatrix, norm: Double
  ) throws(Failure) -> (u: FloatMatrix, values: [Float], vt: FloatMatrix) {
    // Vectors of the shorter side are kept: fewer values, and never more vectors than that side is long.
    let isWide = matrix.columns > matrix.rows
    let side = min(matrix.rows, matrix.columns)
    let rank = min(rank, side)
    // Values near the ends of the range of 32 bits are brought to its middle.
    let exponent = norm > 0 && norm.isFinite ? min(120, max(-120, Int(norm.exponent))) : 0
    let scale = Float(sign: .plus, exponent: -exponent, significand: 1)
    var basis = KrylovBasis(lapack: lapack)
    var next = try FloatMatrix.start(min(width, side), side)
    _ = try lapack.orthonormalize(next)
    let scaled = norm * Double(scale)
    var convergence = Convergence(total: scaled * scaled, limit: Self.blockLimit)
    var vectors: FloatMatrix
    while true {
      try Interruption.check()
      let image = try lapack.product(next, matrix, transposed: !isWide, scale: scale)
      let twice = try lapack.product(image, matrix, transposed: isWide, scale: scale)
      try basis.append(next, image: twice)
      // Rayleigh and Ritz: of M Mᵀ or MᵀM between the vectors so far, whose eigenvalues are squares of singular values.
      let small = try basis.projection()
      if basis.count >= rank {
        convergence.add(try lapack.singularValues(small).prefix(rank).reduce(0) { $0 + Double($1) })
        if convergence.isReached || basis.count == side {
          vectors = try basis.combine(lapack.decompose(small).vt, rank)
          break
        }
      }
      next = try basis.orthonormalized(twice, at: min(width, side - basis.count))
    }
    // Once more between those that were found, since squares have half the digits.
    let image = try lapack.product(vectors, matrix, transposed: !isWide, scale: scale)
    let r = try lapack.orthonormalize(image)
    let (u, values, vt) = try lapack.decompose(r)
    let near = try lapack.product(u.transposed(), vectors, transposed: false)
    let far = try lapack.product(vt, image, transposed: false)
    let sizes = values.map { $0 / scale }
    return isWide ? (try near.transposed(), sizes, far) : (try far.transposed(), sizes, near)
  }
}

/// Orthonormal rows, in blocks, and the symmetric matrix that was multiplied with between them.
private struct KrylovBasis {
  let lapack: Lapack
  private var blocks: [FloatMatrix] = []
  /// Of each block's image with every block up to it.
  private var products: [[FloatMatrix]] = []

  init(lapack: Lapack) { self.lapack = lapack }

  var count: Int { blocks.reduce(0) { $0 + $1.rows } }

  mutating func append(_ block: FloatMatrix, image: FloatMatrix) throws(Failure) {
    blocks.append(block)
    products.append(try coefficients(image))
  }

  private func coefficients(_ rows: FloatMatrix) throws(Failure) -> [FloatMatrix] {
    let results = BlockResults<FloatMatrix>(blocks.count)
    let (blocks, own) = (blocks, Lapack(jobs: 1))
    try Blocks(blocks.count, of: 1, jobs: lapack.jobs).perform { (block, _) throws(Failure) in
      results.set(block, try own.product(rows, blocks[block], transposed: true))
    }
    return results.all
  }

  /// The symmetric matrix between all vectors.
  func projection() throws(Failure) -> FloatMatrix {
    let size = count
    let result = try FloatMatrix(rows: size, columns: size)
    var row = 0
    for (block, list) in products.enumerated() {
      var column = 0
      for product in list {
        for i in 0..<product.rows {
          for j in 0..<product.columns {
            result[row + i, column + j] = product[i, j]
            result[column + j, row + i] = product[i, j]
          }
        }
        column += product.columns
      }
      row += blocks[block].rows
    }
    return result
  }

  /// - Parameter vectors: rows of as many numbers as there are vectors.
  /// - Returns: the first rows, as combinations of the vectors.
  func combine(_ vectors: FloatMatrix, _ rank: Int) throws(Failure) -> FloatMatrix {
    guard let side = blocks.first?.columns else { throw Failure(.internal, "no vectors") }
    let result = try FloatMatrix(rows: rank, columns: side)
    var first = 0
    for block in blocks {
      let part = try FloatMatrix(rows: rank, columns: block.rows)
      for row in 0..<rank { for column in 0..<block.rows { part[row, column] = vectors[row, first + column] } }
      try lapack.add(part, times: block, by: 1, to: result)
      first += block.rows
    }
    return result
  }

  /// The first rows, without what they share with the vectors, orthonormal.
  func orthonormalized(_ rows: FloatMatrix, at limit: Int) throws(Failure) -> FloatMatrix {
    let result = try FloatMatrix(rows: limit, columns: rows.columns)
    for row in 0..<limit { for column in 0..<rows.columns { result[row, column] = rows[row, column] } }
    for _ in 0..<2 {
      for (part, block) in zip(try coefficients(result), blocks) {
        try lapack.add(part, times: block, by: -1, to: result)
      }
      _ = try lapack.orthonormalize(result)
    }
    return result
  }
}

extension Lapack {
  /// `result += factor · X · M`.
  fileprivate func add(
    _ x: FloatMatrix, times matrix: FloatMatrix, by factor: Float, to result: FloatMatrix
  ) throws(Failure) {
    precondition(x.columns == matrix.rows && x.rows == result.rows && matrix.columns == result.columns)
    try Blocks(result.columns, of: 512, jobs: jobs).perform { (_, range) throws(Failure) in
      let first = range.lowerBound
      unsafe x.withValues { a in
        unsafe matrix.withValues { b in
          unsafe result.withValues { c in
            unsafe nibble_sgemm(
              0, 0, Int32(x.rows), Int32(range.count), Int32(x.columns), factor, a, Int32(x.columns), b + first,
              Int32(matrix.columns), 1, c + first, Int32(result.columns))
          }
        }
      }
    }
  }
}
