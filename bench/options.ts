import { readFileSync } from 'node:fs'
import path from 'node:path'
import { parseArgs } from 'node:util'

/** A list is given with commas. */
type Value = boolean | number | string | readonly string[]
type Options<D extends Record<string, Value>> = {
  readonly [K in keyof D]: D[K] extends boolean
    ? boolean
    : D[K] extends number
      ? number
      : D[K] extends string
        ? string
        : readonly string[]
} & { readonly json: boolean }

/**
 * What the command line of a benchmark says, with `defaults` for the rest, and `--json`. `--help` prints the comment at the top of its file,
 * which says how it is called and what is measured. That, and what is not understood, ends the process.
 */
export function readOptions<const D extends Record<string, Value>>(file: string, defaults: D): Options<D> {
  return readWithRest(file, defaults, false).options
}

/** As `readOptions`, for those to whom words without a name say something; they stand behind `--`. */
export function readOptionsAndWords<const D extends Record<string, Value>>(
  file: string,
  defaults: D,
): { options: Options<D>; words: string[] } {
  return readWithRest(file, defaults, true)
}

function readWithRest<D extends Record<string, Value>>(file: string, defaults: D, takesWords: boolean) {
  const known: Record<string, Value> = { ...defaults, json: false }
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: takesWords,
      options: Object.fromEntries(
        [...Object.entries(known), ['help', false] as const].map(([name, value]) => [
          name,
          { type: typeof value === 'boolean' ? ('boolean' as const) : ('string' as const) },
        ]),
      ),
    })
    if (values.help) {
      process.stdout.write(`${topOf(file)}\n`)
      process.exit(0)
    }
    const given = Object.entries(values).map(([name, value]) => [name, valueAs(name, value!, known[name]!)])
    return { options: { ...known, ...Object.fromEntries(given) } as Options<D>, words: positionals }
  } catch (error) {
    process.stderr.write(`${path.basename(file)}: ${(error as Error).message}\nMore with --help.\n`)
    process.exit(2)
  }
}

function valueAs(name: string, given: string | boolean, like: Value): Value {
  if (typeof given === 'boolean' || typeof like === 'string') return given
  if (typeof like !== 'number') return given.split(',')
  const number = Number(given)
  if (given.trim() === '' || !Number.isFinite(number) || number < 0)
    throw new Error(`--${name} "${given}": a number, 0 or more`)
  return number
}

/** The first comment of a file, without what makes it one. */
function topOf(file: string): string {
  const [, comment] = /^\/\*\*\n(.*?)\n \*\//ms.exec(readFileSync(file, 'utf8'))!
  return comment!.replace(/^ \* ?/gm, '')
}
