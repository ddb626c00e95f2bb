import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import path from 'node:path'
import { PromptedProcess } from './prompted-process.ts'
import { commandExists, skipUnless, testUnless } from './require-command.ts'
import { runCommand } from './run-command.ts'

/** Where test/tools/qemu52.sh puts what it builds. */
const BIN =
  process.env.COLLIE_QEMU52 ??
  path.join(process.env.XDG_CACHE_HOME ?? path.join(homedir(), '.cache'), 'collie-test/qemu52/bin')

const TOOLS = ['qemu-img', 'qemu-io', 'qemu-nbd'] as const

/** The system emulator, which test/tools/qemu52.sh does not build: it would take several times as long. */
const EMULATOR = 'qemu-system-x86_64'
const PROGRAMS = [...TOOLS, EMULATOR] as const

/** The path of a program of QEMU 5.2, the last with a driver for `sheepdog:` that still worked. */
export const qemu52 = (program: (typeof PROGRAMS)[number]) => path.join(BIN, program)

/** `test` for tests that need QEMU 5.2 with its Sheepdog driver. */
export const withQemu52 = testUnless(
  TOOLS.some((tool) => !commandExists(qemu52(tool))) && 'QEMU 5.2 is missing: run test/tools/qemu52.sh',
)

/** `test` for tests that need a whole machine of QEMU 5.2, which CI has not got either. */
export const withQemu52Machine = skipUnless(
  PROGRAMS.some((program) => !commandExists(qemu52(program)))
    ? `${EMULATOR} 5.2 is missing: build it from the same source as test/tools/qemu52.sh builds, and name its directory in COLLIE_QEMU52`
    : !existsSync('/usr/share/seabios/bios-256k.bin') &&
        'its firmware is missing: apt-get install seabios qemu-system-data',
)

/** Runs `qemu-img` to its end; resolves with what it printed. */
export const qemuImg = (...words: string[]) => runCommand([qemu52('qemu-img'), ...words])

/**
 * Makes `clone` from the snapshot at `base`. QEMU 5.2 then frees the name of `base` twice, so that some one in twenty of these commands
 * ends with SIGABRT: after the clone was made, which is what counts here.
 */
export async function qemuClone(base: string, clone: string): Promise<void> {
  await qemuImg('create', '-b', base, '-F', 'sheepdog', clone).catch((error: Error) => {
    if (!/ended with SIGABRT: .*\bdouble free\b/s.test(error.message)) throw error
  })
}

/** Runs `qemu-io` with commands. Rejects when one fails, also when what is read is not the pattern. */
export function qemuIo(url: string, commands: readonly string[], ...options: string[]): Promise<string> {
  const words = commands.flatMap((command) => ['-c', command])
  return runCommand([qemu52('qemu-io'), '-f', 'raw', ...options, ...words, url])
}

/** What a command of `qemu-io` prints when it fails, also when what is read is not the pattern. */
export const QEMU_IO_FAILED = /^(\w+ failed|Pattern verification failed)/m

/**
 * A `qemu-io` that is told what to do one command after the other and keeps its image open in between.
 *
 *     const io = await OpenQemuIo.open(url)
 *     await io.run('write -P 1 0 4k')
 *     await io.close()
 */
export class OpenQemuIo {
  readonly #process: PromptedProcess

  private constructor(process: PromptedProcess) {
    this.#process = process
  }

  static async open(url: string, ...options: string[]): Promise<OpenQemuIo> {
    const words = [qemu52('qemu-io'), '-f', 'raw', ...options, url]
    return new OpenQemuIo(await PromptedProcess.start(words, 'qemu-io> '))
  }

  /** One command, to its end. Rejects when it fails, or when the process has ended. */
  async run(command: string): Promise<string> {
    const printed = await this.#process.ask(command)
    if (QEMU_IO_FAILED.test(printed)) throw new Error(`${command}: ${printed}`)
    return printed
  }

  /** Ends it as a user does, so that it lets go of its image. */
  close(): Promise<void> {
    return this.#process.quit('quit')
  }

  /** Ends it as a crash does. */
  kill(): Promise<void> {
    return this.#process.kill()
  }
}
