import { type ChildProcess, spawn } from 'node:child_process'

/** A program that prints a prompt, takes a command, and prints its answer and the prompt again. */
export class PromptedProcess {
  readonly #child: ChildProcess
  readonly #prompt: string
  #printed = ''
  #wake: () => void = () => {}
  #ended = false

  private constructor(child: ChildProcess, prompt: string) {
    this.#child = child
    this.#prompt = prompt
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

  /** Resolves when the first prompt is there; it ends with this process at the latest. */
  static async start(words: readonly string[], prompt: string): Promise<PromptedProcess> {
    const [command, ...args] = words as [string, ...string[]]
    const child = spawn(command, args, { stdio: 'pipe' })
    const killWithUs = () => child.kill('SIGKILL')
    process.once('exit', killWithUs)
    child.once('exit', () => process.off('exit', killWithUs))
    child.stdin.on('error', () => {}) // it has ended, which the next command tells
    const prompted = new PromptedProcess(child, prompt)
    await prompted.#untilPrompt()
    return prompted
  }

  /** Resolves with all that is printed before the next prompt. Rejects when the process has ended. */
  ask(command: string): Promise<string> {
    this.#child.stdin!.write(`${command}\n`)
    return this.#untilPrompt()
  }

  /** Ends it by a last command, and waits for the end. */
  async quit(command: string): Promise<void> {
    this.#child.stdin!.end(`${command}\n`)
    await this.#untilEnd()
  }

  /** Ends it as a crash does. Does nothing when it has ended. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#untilEnd()
  }

  async #untilPrompt(): Promise<string> {
    while (!this.#printed.endsWith(this.#prompt)) {
      if (this.#ended) throw new Error(`${this.#child.spawnfile} ended: ${this.#printed}`)
      await this.#change()
    }
    const printed = this.#printed.slice(0, -this.#prompt.length)
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
