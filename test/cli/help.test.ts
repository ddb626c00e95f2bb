import { describe, expect, it } from 'vitest'
import { EXIT } from '../../src/cli/command.ts'
import { nearest } from '../../src/cli/near.ts'
import { parseBytes } from '../../src/cli/size.ts'
import { SETTINGS } from '../../src/settings.ts'
import { COMMANDS, runCommandLine } from './live-node.ts'

/** What all commands have in common. */

describe('every command', () => {
  it('is in the overview, under its own name', async () => {
    const { code, out } = await runCommandLine(['--help'])
    expect(code).toBe(EXIT.OK)
    for (const { summary } of COMMANDS) expect(out).toContain(summary)
    expect(new Set(COMMANDS.map(({ name }) => name)).size).toBe(COMMANDS.length)
    const about = await runCommandLine(['vdi', 'attr', '--help'])
    expect(about.out.match(/^ {2}vdi attr \w+/gm)).toHaveLength(4)
    expect(about.out).not.toContain('vdi list')
  })

  it.each(COMMANDS)(
    '`$name` has help that names all it takes, --json, and the settings that matter to it',
    async (command) => {
      const { code, out } = await runCommandLine([...command.name.split(' '), '--help'])
      expect(code).toBe(EXIT.OK)
      const [usage] = out.split('\n')
      expect(usage).toMatch(new RegExp(`^Usage: collie ${command.name}( |$).*\\[--json\\] \\[SETTINGS\\]$`))
      for (const { name, meaning } of command.operands ?? []) {
        expect(usage).toContain(name)
        expect(out).toMatch(new RegExp(`^ {2}${name} .*${escaped(meaning)}$`, 'm'))
      }
      for (const { flag, short, value, meaning, required } of command.options ?? []) {
        const shortForm = short === undefined ? '' : `-${short}, `
        const valueForm = value === undefined ? '' : ` ${escaped(value)}`
        expect(out).toMatch(new RegExp(`^ {2}${shortForm}--${flag}${valueForm} +${escaped(meaning)}$`, 'm'))
        if (required) expect(usage).toContain(`--${flag} ${value}`)
      }
      expect(out).toMatch(/^ {2}--json /m)
      const isForAll = command.name === 'config show'
      for (const { flag } of SETTINGS) {
        const isNamed = out.includes(`  --${flag} VALUE`)
        expect([flag, isNamed]).toEqual([flag, isForAll || flag === 'data-dir'])
      }
      for (const line of out.split('\n')) expect(line).not.toMatch(/ $/)
    },
  )

  it.each(COMMANDS)('`$name` says what it does in a sentence, and clashes with no setting', (command) => {
    expect(command.summary).toMatch(/^[A-Z].*\.$/)
    const settings = new Set([...SETTINGS.map(({ flag }) => flag), 'config', 'help', 'json'])
    const shorts = (command.options ?? []).flatMap(({ short }) => short ?? [])
    for (const { flag, meaning } of command.options ?? []) {
      expect(settings).not.toContain(flag)
      expect(meaning).toMatch(/^[A-Z].*\.$/)
    }
    for (const { meaning } of command.operands ?? []) expect(meaning).toMatch(/^[A-Z].*\.$/)
    expect(new Set([...shorts, 'h']).size).toBe(shorts.length + 1)
  })

  it.each(COMMANDS)('`$name` refuses an option and a word that it does not know', async ({ name, operands = [] }) => {
    const unknown = await runCommandLine([...name.split(' '), '--no-such-option'])
    expect(unknown.code).toBe(EXIT.USAGE)
    expect(unknown.err).toContain('--no-such-option')
    if (operands.some(({ repeated }) => repeated)) return
    const tooMany = await runCommandLine([...name.split(' '), ...operands.map(() => 'x'), 'surplus'])
    expect(tooMany.code).toBe(EXIT.USAGE)
    expect(tooMany.err).toContain('"surplus" is one word too many')
  })

  const withoutNode = /^cluster (init|join|join-info)$/

  it.each(COMMANDS.filter(({ name }) => /^(vdi|node|cluster) /.test(name) && !withoutNode.test(name)))(
    '`$name` says what to do when no node runs',
    async ({ name, operands = [], options = [] }) => {
      const words = operands.filter(({ optional, repeated }) => !optional && !repeated).map(() => '1')
      const flags = options.filter(({ required }) => required).flatMap(({ flag }) => [`--${flag}`, 'x'])
      const size = name === 'vdi create' ? ['--size', '1G'] : []
      const line = [...name.split(' '), ...words, ...flags, ...size, '--data-dir', '/nonexistent/collie']
      const { code, out, err } = await runCommandLine(line, { input: [] })
      expect({ code, out }).toEqual({ code: EXIT.UNAVAILABLE, out: '' })
      expect(err).toMatch(/no node is running on \/nonexistent\/collie; start one with `collie serve`/)
    },
  )
})

const escaped = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')

describe('a command that is mistyped', () => {
  it.each([
    ['vdi lst', 'did you mean `collie vdi list`?'],
    ['vdi crate disk 1G', 'did you mean `collie vdi create`?'],
    ['cluster scrub', 'which command of `cluster scrub`?'],
    ['cluster inof', 'did you mean `collie cluster info`?'],
  ])('`%s`', async (line, advice) => {
    const { code, err } = await runCommandLine(line.split(' '))
    expect(code).toBe(EXIT.USAGE)
    expect(err).toContain(advice)
  })

  it('is answered with the commands that begin as it does, and no others', async () => {
    const { err } = await runCommandLine(['cluster', 'scrub'])
    const named = [...err.matchAll(/^ {2}(\w+(?: \w+)+) {2}/gm)].map(([, name]) => name)
    expect(named).toEqual(['cluster scrub status', 'cluster scrub start', 'cluster scrub pause'])
  })
})

describe('sizes', () => {
  it.each([
    ['0', 0],
    ['4096', 4096],
    ['4096B', 4096],
    ['1k', 1024],
    ['512M', 512 * 2 ** 20],
    ['10G', 10 * 2 ** 30],
    ['10GiB', 10 * 2 ** 30],
    ['10gb', 10 * 2 ** 30],
    ['1.5T', 1.5 * 2 ** 40],
    ['0.5K', 512],
    ['1P', 2 ** 50],
  ])('%s is %d bytes', (text, bytes) => {
    expect(parseBytes(text, 'SIZE')).toBe(bytes)
  })

  it.each(['', '-1', '1.2.3', '10X', 'G', '1e9', '0x10', '10 G', '1.0001', '9P9', '16777216P'])(
    '"%s" is none',
    (text) => {
      expect(() => parseBytes(text, '--size')).toThrow(/^--size: /)
    },
  )
})

describe('the nearest word', () => {
  it.each([
    ['dsik', ['disk', 'disc', 'desk'], 'disk'],
    ['Volume-1', ['volume-2', 'volume-1'], 'volume-1'],
    ['volume-10', ['volume-1'], 'volume-1'],
    ['x', ['y', 'abc'], 'y'],
    ['apple', ['orange', 'pear'], null],
    ['', ['a'], 'a'],
    ['anything', [], null],
  ])('to "%s" among %j is %j', (word, candidates, expected) => {
    expect(nearest(word, candidates)).toBe(expected)
  })
})
