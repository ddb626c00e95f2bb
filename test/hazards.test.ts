import { existsSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'

const ROOT = path.resolve(import.meta.dirname, '..')

interface Shown {
  file: string
  test: string
}

/** The tests of each row of docs/hazards.md: the last cell has them as `file`: name. */
function rows(): Shown[][] {
  const lines = readFileSync(path.join(ROOT, 'docs/hazards.md'), 'utf8').split('\n')
  const cells = lines.filter((line) => /^\|.*\|$/.test(line)).map((line) => line.slice(1, -1).split('|').at(-1)!.trim())
  return cells
    .filter((cell) => cell !== 'shown by' && !/^-+$/.test(cell))
    .map((cell) =>
      cell.split('<br>').map((each) => {
        const [, file = '', test = ''] = /^`([^`]+)`: (.+)$/.exec(each) ?? []
        return { file, test }
      }),
    )
}

/** A test, or one of those that a table makes, has it as its name or as the end of it. */
function has({ file, test }: Shown): boolean {
  const at = path.join(ROOT, file)
  return test !== '' && existsSync(at) && readFileSync(at, 'utf8').includes(`${test}'`)
}

describe('docs/hazards.md', () => {
  it('names tests that there are, in each row', () => {
    const shown = rows()
    expect(shown.length).toBeGreaterThan(22)
    expect(shown.flat().filter((each) => !has(each))).toEqual([])
  })
})
