import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { testUnless } from './require-command.ts'

const PYTHON = '/usr/bin/python3'
const SCRIPT = path.join(import.meta.dirname, 'visit-horizon.py')

export const isHorizonThere = existsSync('/usr/share/openstack-dashboard/manage.py') && existsSync('/etc/keystone')
export const withHorizon = testUnless(!isHorizonThere && 'apt-get install openstack-dashboard keystone')

/** What is seen of a page. */
export interface Seen {
  status: number
  tables: Record<string, { id: string; name: string; status: string | null }[]>
  messages: string[]
  /** What is wrong in the form that was posted, by its fields. */
  errors: Record<string, string[]>
}

/** Debian's Horizon in a process of its own, and a browser of one user in it, who logs in first. */
export class Horizon {
  readonly #child: ChildProcess
  readonly #lines: AsyncIterator<string>

  private constructor(keystoneUrl: string) {
    const env = { PATH: process.env.PATH, HOME: tmpdir() }
    this.#child = spawn(PYTHON, [SCRIPT, keystoneUrl], { env, stdio: ['pipe', 'pipe', 'inherit'] })
    this.#lines = createInterface({ input: this.#child.stdout! })[Symbol.asyncIterator]()
  }

  static async logIn(keystoneUrl: string, { user, password }: { user: string; password: string }): Promise<Horizon> {
    const horizon = new Horizon(keystoneUrl)
    const form = { region: 'default', domain: 'Default', username: user, password }
    const { status, errors } = await horizon.visit('/auth/login/', form)
    if (status !== 302) throw new Error(`Horizon does not let ${user} in: ${status} ${JSON.stringify(errors)}`)
    return horizon
  }

  /** Opens a page, or posts its form. Rejects when Horizon's own process ends. */
  async visit(page: string, form: Record<string, string | number> | null = null): Promise<Seen> {
    this.#child.stdin!.write(`${JSON.stringify({ path: page, form })}\n`)
    const { value, done } = await this.#lines.next()
    if (done) throw new Error(`Horizon ended at ${page}`)
    return JSON.parse(value)
  }

  async close(): Promise<void> {
    const ended = once(this.#child, 'exit')
    this.#child.stdin!.end()
    await ended
  }
}
