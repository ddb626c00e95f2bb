import { spawn } from 'node:child_process'
import { tmpdir } from 'node:os'
import { text } from 'node:stream/consumers'

export interface RunOptions {
  env?: Readonly<Record<string, string>>
  cwd?: string
}

/**
 * Runs a program to its end and resolves with what it printed, trimmed; rejects with all it said when it fails. Its
 * environment is empty but for PATH, a home without settings, and `env`.
 */
export async function runCommand(words: readonly string[], options: RunOptions = {}): Promise<string> {
  const [command, ...args] = words as [string, ...string[]]
  const child = spawn(command, args, {
    env: { PATH: process.env.PATH, HOME: tmpdir(), ...options.env },
    cwd: options.cwd ?? tmpdir(),
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const ended = new Promise<number | NodeJS.Signals>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => resolve(code ?? signal!))
  })
  const [out, err, ending] = await Promise.all([text(child.stdout), text(child.stderr), ended])
  if (ending !== 0) throw new Error(`${words.join(' ')} ended with ${ending}: ${err}${out}`)
  return out.trim()
}
