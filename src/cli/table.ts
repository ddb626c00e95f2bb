/**
 * Text with its control characters written out, `\\x1b` for one: names come from anybody who may reach the store, and a terminal
 * obeys what it is shown. Line feeds stay if `lines` says that the text has several lines.
 */
export function visible(text: string, { lines = false } = {}): string {
  return text.replace(/\p{Cc}/gu, (letter) => {
    if (letter === '\n') return lines ? letter : '\\n'
    return `\\x${letter.charCodeAt(0).toString(16).padStart(2, '0')}`
  })
}

/** Columns as wide as their longest cell, two blanks between them, nothing after the last. */
export function table(cells: readonly (readonly string[])[]): string {
  const rows = cells.map((row) => row.map((cell) => visible(cell)))
  const columnCount = Math.max(0, ...rows.map((row) => row.length))
  const widths = Array.from({ length: columnCount }, (_, column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0)),
  )
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

/** `4.0 MiB` for 4194304. */
export function formatBytes(bytes: number): string {
  const power = bytes < 1 ? 0 : Math.min(Math.floor(Math.log2(bytes) / 10), UNITS.length - 1)
  return `${power === 0 ? bytes : (bytes / 1024 ** power).toFixed(1)} ${UNITS[power]}`
}
