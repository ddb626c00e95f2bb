import { ConfigError, SETTING_FLAGS } from '../config.ts'
import { ControlError } from '../control/messages.ts'
import { UsageError } from '../errors.ts'
import { DamagedFile } from '../runtime/files.ts'
import { type Command, type CommandIo, EXIT } from './command.ts'
import { parseLine } from './command-line.ts'
import { commandHelp, overview } from './help.ts'

/** Runs one command line and resolves with its exit code. Prints whatever goes wrong to `io.err`. */
export async function runCli(args: readonly string[], commands: readonly Command[], io: CommandIo): Promise<number> {
  try {
    const { command, words, help, call } = parseLine(args, commands, SETTING_FLAGS)
    if (help) {
      io.out(command ? commandHelp(command) : overview(commands, words))
      return EXIT.OK
    }
    if (command === null) {
      if (words.length === 0) throw new UsageError(`which command?\n\n${overview(commands)}`)
      throw new UsageError(
        `\`collie ${words.join(' ')}\`: there is no such command\n\n${overview(commands, words.slice(0, 1))}`,
      )
    }
    const print = (value: unknown, text: () => string) => io.out(call.json ? JSON.stringify(value, null, 2) : text())
    return await command.run({ ...call, io, print })
  } catch (error) {
    const { code, message } = explain(error)
    io.err(`collie: ${message}`)
    return code
  }
}

function explain(error: unknown): { code: number; message: string } {
  if (error instanceof UsageError) return { code: EXIT.USAGE, message: error.message }
  if (error instanceof ConfigError) return { code: EXIT.CONFIG, message: `settings: ${error.message}` }
  if (error instanceof ControlError) {
    const code = error.code === 'Disconnected' ? EXIT.UNAVAILABLE : EXIT.INTERNAL
    return { code, message: error.message }
  }
  if (error instanceof DamagedFile) return { code: EXIT.DATA_UNSOUND, message: error.message }
  // The system said no: an address in use, a directory that may not be written.
  if (error instanceof Error && 'syscall' in error) return { code: EXIT.UNAVAILABLE, message: error.message }
  return { code: EXIT.INTERNAL, message: error instanceof Error ? (error.stack ?? error.message) : String(error) }
}
