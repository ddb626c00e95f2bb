import { type ChildProcess, spawn } from 'node:child_process'
import { homedir } from 'node:os'
import path from 'node:path'
import { commandExists, testUnless } from './require-command.ts'
import { runCommand } from './run-command.ts'

/** Where test/tools/qemu52.sh puts what it builds. */
const BIN =
  process.env.COLLIE_QEMU52 ??
  path.join(process.env.XDG_CACHE_HOME ?? path.join(homedir(), '.cache'), 'collie-test/qemu52/bin')

const TOOLS = ['qemu-img', 'qemu-io', 'qemu-nbd'] as const

/** The path of a tool of QEMU 5.2, the last with a driver for `sheepdog:` that still worked. */
export const qemu52 = (tool: (typeof TOOLS)[number]) => path.join(BIN, tool)

/** `test` for tests that need QEMU 5.2 with its Sheepdog driver. */
export const withQemu52 = testUnless(
  TOOLS.some((tool) => !commandExists(qemu52(tool))) && 'QEMU 5.2 is missing: run test/tools/qemu52.sh',
)

/** Runs `qemu-img` to its end; resolves with what it printed. */
export const qemuImg = (...words: string[]) => runCommand([qemu52('qemu-img'), ...words])

/** Runs `qemu-io` with commands. Rejects when one fails, also when what is read is not the pattern. */
export function qemuIo(url: string, commands: readonly string[], ...options: string[]): Promise<string> {
  const words = commands.flatMap((command) => ['-c', command])
  return runCommand([qemu52('qemu-io'), '-f', 'raw', ...options, ...words, url])
}

const PROMPT = 'qemu-io> '

/**
 * A `qemu-io` that is told what to do one command after the other and keeps its image open in between.
 *
 *     const io = await OpenQemuIo.open(url)
 *     await io.run('write -P 1 0 4k')
 *     await io.close()
 */
export class OpenQemuIo {
  readonly #child: ChildProcess
  #printed = ''
  #wake: () => void = () => {}
  #ended = false

  private constructor(child: ChildProcess) {
    this.#child = child
    for (const stream of [child.stdout!, child.stderr!]) {
      stream.on('data', (chunk) => {
        this.#printed += String(chunk)
        this.#wake()
      })
    }
    child.once('close', () => {
      this.#ended = true
      this.#wake()
    })
  }

  static async open(url: string, ...options: string[]): Promise<OpenQemuIo> {
    const child = spawn(qemu52('qemu-io'), ['-f', 'raw', ...options, url], { stdio: 'pipe' })
    const killWithUs = () => child.kill('SIGKILL')
    process.once('exit', killWithUs)
    child.once('exit', () => process.off('exit', killWithUs))
    child.stdin.on('error', () => {}) // it has ended, which the next command tells
    const io = new OpenQemuIo(child)
    await io.#untilPrompt()
    return io
  }

  /** One command, to its end. Rejects when it fails, or when the process has ended. */
  async run(command: string): Promise<string> {
    this.#child.stdin!.write(`${command}\n`)
    const printed = await this.#untilPrompt()
    if (/^(\w+ failed|Pattern verification failed)/m.test(printed)) throw new Error(`${command}: ${printed}`)
    return printed
  }

  /** Ends it as a user does, so that it lets go of its image. */
  async close(): Promise<void> {
    this.#child.stdin!.end('quit\n')
    await this.#untilEnd()
  }

  /** Ends it as a crash does. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#untilEnd()
  }

  async #untilPrompt(): Promise<string> {
    while (!this.#printed.endsWith(PROMPT)) {
      if (this.#ended) throw new Error(`qemu-io ended: ${this.#printed}`)
      await this.#change()
    }
    const printed = this.#printed.slice(0, -PROMPT.length)
    this.#printed = ''
    return printed
  }

  async #untilEnd(): Promise<void> {
    while (!this.#ended) await this.#change()
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve
    })
  }
}
