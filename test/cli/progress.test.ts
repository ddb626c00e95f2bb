import { describe, expect, it } from 'vitest'
import type { CommandCall } from '../../src/cli/command.ts'
import { Progress } from '../../src/cli/progress.ts'
import { systemClock } from '../../src/runtime/clock.ts'

/** Work of 100 MiB that does 1 MiB every 100 ms, as it shows on standard error. */
function shown(options: { json?: boolean; columns?: number; totalBytes?: number | null }): string[] {
  const shownLines: string[] = []
  let nowMs = 0
  const { columns } = options
  const call = {
    json: options.json ?? false,
    io: {
      err: (text: string) => shownLines.push(text),
      terminal:
        columns === undefined ? null : { columns: () => columns, draw: (text: string) => shownLines.push(text) },
    },
  } as unknown as CommandCall
  const { totalBytes = 100 * MIB } = options
  const progress = new Progress(call, { ...systemClock, monotonicMs: () => nowMs }, 'importing disk', totalBytes)
  for (let done = 0; done <= 100; done++) {
    progress.update(done * MIB)
    nowMs += 100
  }
  progress.end()
  return shownLines
}

const MIB = 1024 * 1024

describe('progress', () => {
  it('is a line every few seconds where nobody can see a bar', () => {
    expect(shown({})).toEqual([
      'importing disk: 50% of 100.0 MiB, 10.0 MiB/s, 0:05 left',
      'importing disk: 100% of 100.0 MiB, 10.0 MiB/s, 0:00 left',
    ])
    expect(shown({ totalBytes: null })[0]).toBe('importing disk: 50.0 MiB, 10.0 MiB/s')
  })

  it('is JSON with --json', () => {
    const lines = shown({ json: true, columns: 80 }).map((line) => JSON.parse(line))
    expect(lines).toHaveLength(10)
    expect(lines[0]).toEqual({
      progress: { what: 'importing disk', done_bytes: 10 * MIB, total_bytes: 100 * MIB },
    })
  })

  it('is a bar on a terminal, which is drawn over and cleared at the end', () => {
    const drawn = shown({ columns: 80 })
    expect(drawn).toHaveLength(101)
    for (const line of drawn) expect(line.startsWith('\r\u001b[K')).toBe(true)
    expect(drawn[49]).toMatch(/^\r\S+importing disk {2}\[#+\.+\] {2}50% of 100\.0 MiB, 10\.0 MiB\/s, 0:05 left$/)
    expect(drawn.at(-1)).toBe('\r\u001b[K')
  })

  it.each([10, 20, 40, 60, 80, 200])('fits into %d columns', (columns) => {
    for (const line of shown({ columns })) expect(line.length - '\r\u001b[K'.length).toBeLessThan(columns)
  })

  it('of short work prints nothing but on a terminal', () => {
    expect(shown({ totalBytes: 0 }).length).toBeGreaterThan(0)
    const call = { json: false, io: { terminal: null, err: () => expect.unreachable() } } as unknown as CommandCall
    const progress = new Progress(call, { ...systemClock, monotonicMs: () => 0 }, 'importing disk', MIB)
    progress.update(MIB)
    progress.end()
  })
})
