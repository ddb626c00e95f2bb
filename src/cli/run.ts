import { SETTING_FLAGS } from '../config.ts'
import { UsageError } from '../errors.ts'
import { type Command, type CommandIo, EXIT } from './command.ts'
import { parseLine } from './command-line.ts'
import { explain } from './failures.ts'
import { commandHelp, overview } from './help.ts'
import { nearest } from './near.ts'
import { visible } from './table.ts'

/** Runs one command line and resolves with its exit code. Prints whatever goes wrong to `io.err`. */
export async function runCli(args: readonly string[], commands: readonly Command[], io: CommandIo): Promise<number> {
  try {
    const { command, words, help, call } = parseLine(args, commands, SETTING_FLAGS)
    if (help) {
      io.out(command ? commandHelp(command) : overview(commands, words))
      return EXIT.OK
    }
    if (command === null) {
      throw new UsageError(`${wrongWords(words, commands)}\n\n${overview(commands, knownWords(words, commands))}`)
    }
    const print = (value: unknown, text: () => string) =>
      io.out(call.json ? JSON.stringify(value, null, 2) : visible(text(), { lines: true }))
    const err = (text: string) => io.err(visible(text, { lines: true }))
    return await command.run({ ...call, io: { ...io, err }, print })
  } catch (error) {
    const { code, message } = explain(error)
    io.err(visible(`collie: ${message}`, { lines: true }))
    return code
  }
}

/** As many of the words as some command begins with. */
function knownWords(words: readonly string[], commands: readonly Command[]): readonly string[] {
  const isKnown = (count: number) => commands.some(({ name }) => name.startsWith(`${words.slice(0, count).join(' ')} `))
  const count = words.findIndex((_, index) => !isKnown(index + 1))
  return count < 0 ? words : words.slice(0, count)
}

function wrongWords(words: readonly string[], commands: readonly Command[]): string {
  if (words.length === 0) return 'which command?'
  const line = words.join(' ')
  if (commands.some(({ name }) => name.startsWith(`${line} `))) return `which command of \`${line}\`?`
  const near = nearest(
    words.slice(0, 2).join(' '),
    commands.map(({ name }) => name),
  )
  const problem = `\`collie ${line}\`: there is no such command`
  return near === null ? problem : `${problem}; did you mean \`collie ${near}\`?`
}
