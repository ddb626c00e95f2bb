import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { freePort } from './collie.ts'
import { requireCommands } from './require-command.ts'
import { runCommand } from './run-command.ts'

/** `test` for tests that need tgt, and initiators to reach it. */
export const withTgt = requireCommands({
  tgtd: 'tgt',
  tgtadm: 'tgt',
  'iscsi-inq': 'libiscsi-bin',
  'iscsi-readcapacity16': 'libiscsi-bin',
  'iscsi-test-cu': 'libiscsi-bin',
  'qemu-io': 'qemu-utils',
})

const POLL_MS = 50
const START_MS = 30_000

/** A tgtd of our own, which serves iSCSI on loopback. Each target has one logical unit, number 1. It needs root. */
export class Tgtd {
  readonly #child: ChildProcess
  readonly #port: number
  readonly #targets = new Set<number>()
  #lastTarget = 0
  #printed = ''

  private constructor(child: ChildProcess, port: number) {
    this.#child = child
    this.#port = port
    for (const stream of [child.stdout!, child.stderr!]) {
      stream.on('data', (chunk) => {
        this.#printed += String(chunk)
      })
    }
  }

  static async start(): Promise<Tgtd> {
    const port = await freePort()
    const child = spawn('tgtd', ['-f', '-C', String(port), '--iscsi', `portal=127.0.0.1:${port}`])
    const killWithUs = () => child.kill('SIGKILL')
    process.once('exit', killWithUs)
    child.once('exit', () => process.off('exit', killWithUs))
    const tgtd = new Tgtd(child, port)
    await tgtd.#untilReady()
    return tgtd
  }

  /** Resolves with the URL of the unit. `store` is a path for `rdwr`, `unix:SOCKET:VDI` or `tcp:HOST:PORT:VDI` for `sheepdog`. */
  async serve(type: 'rdwr' | 'sheepdog', store: string): Promise<string> {
    const target = ++this.#lastTarget
    const name = `iqn.2026-01.test:${target}`
    const words = ['--lld', 'iscsi', '--tid', String(target)]
    await this.#admin(...words, '--op', 'new', '--mode', 'target', '-T', name)
    this.#targets.add(target)
    await this.#admin(...words, '--op', 'new', '--mode', 'logicalunit', '--lun', '1', '--bstype', type, '-b', store)
    await this.#admin(...words, '--op', 'bind', '--mode', 'target', '-I', 'ALL')
    return `iscsi://127.0.0.1:${this.#port}/${name}/1`
  }

  /** Takes the target of a URL away, and so closes what it served. */
  async withdraw(url: string): Promise<void> {
    await this.#delete(Number(/:(\d+)\/1$/.exec(url)![1]))
  }

  async stop(): Promise<void> {
    const ended = once(this.#child, 'close')
    try {
      for (const target of this.#targets) await this.#delete(target)
    } finally {
      this.#child.kill('SIGKILL') // after SIGTERM it waits for its initiators
      await ended
    }
  }

  async #delete(target: number): Promise<void> {
    this.#targets.delete(target)
    await this.#admin('--lld', 'iscsi', '--op', 'delete', '--force', '--mode', 'target', '--tid', String(target))
  }

  #admin(...words: string[]): Promise<string> {
    return runCommand(['tgtadm', '-C', String(this.#port), ...words]).catch((error: Error) => {
      throw new Error(`${error.message}\ntgtd: ${this.#printed}`)
    })
  }

  /** tgtd has no way to tell, so this asks until it answers. */
  async #untilReady(): Promise<void> {
    const deadline = Date.now() + START_MS
    for (;;) {
      const answer = await this.#admin('--op', 'show', '--mode', 'sys').catch((error: Error) => error)
      if (!(answer instanceof Error)) return
      if (this.#child.exitCode !== null || Date.now() > deadline) throw answer
      await new Promise((resolve) => setTimeout(resolve, POLL_MS))
    }
  }
}

/** `iscsi-test-cu`: the tests that failed, as `Suite.Test`. All that were asked for have run. */
export async function iscsiTestFailures(url: string, tests = 'ALL'): Promise<string[]> {
  const words = ['iscsi-test-cu', '-d', '-n', '-t', tests, url]
  const printed = await runCommand(['sh', '-c', '"$@" || true', 'sh', ...words]) // it also ends badly when a test fails
  const summary = /^ *tests +(\d+) +(\d+) +\d+ +(\d+) /m.exec(printed)
  const failures = [...printed.matchAll(/^Suite (\S+), Test (\S+) had failures:$/gm)].map(([, s, t]) => `${s}.${t}`)
  if (summary === null || Number(summary[2]) === 0 || Number(summary[3]) !== failures.length) {
    throw new Error(`iscsi-test-cu printed no summary that fits: ${printed}`)
  }
  return failures
}
