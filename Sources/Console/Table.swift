/// Columns of text, as wide as their widest cell.
package struct Table {
  package var head: [String]
  package var rows: [[String]]
  /// Columns aligned to the right.
  package var right: [Int]

  package init(head: [String], rows: [[String]], right: [Int] = []) {
    self.head = head
    self.rows = rows
    self.right = right
  }

  package var text: String {
    var widths = head.map(\.count)
    for row in rows {
      for (column, cell) in row.enumerated() where column < widths.count {
        widths[column] = max(widths[column], cell.count)
      }
    }
    var text = ""
    for row in [head] + rows {
      var line = ""
      for (column, cell) in row.enumerated() {
        let padding = String(repeating: " ", count: max(0, widths[column] - cell.count))
        line += (column == 0 ? "" : "  ") + (right.contains(column) ? padding + cell : cell + padding)
      }
      while line.hasSuffix(" ") { line.removeLast() }
      text += line + "\n"
    }
    return text
  }
}
