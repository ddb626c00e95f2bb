import { spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'

export interface ProgramEnd {
  /** Null when a signal ended it. */
  code: number | null
  /** What it printed to standard output, unless `onOutput` took it, and to standard error: the last of it. */
  out: string
  err: string
}

/** Enough to tell what went wrong. */
const KEPT_CHARACTERS = 1 << 20

/**
 * Runs a program to its end. Rejects only when it cannot be started: with ENOENT when it is not installed. When the signal is
 * aborted it is asked to end, and waited for.
 */
export function runProgram(
  program: string,
  args: readonly string[],
  {
    signal,
    onOutput,
    errFile,
    env,
    ownGroup = false,
  }: {
    signal?: AbortSignal
    onOutput?: (text: string) => void
    /** What is printed to standard error is added to this file, and not kept. */
    errFile?: string
    /** Instead of this process's own. */
    env?: Readonly<Record<string, string | undefined>>
    /** Signals of the terminal do not reach it. */
    ownGroup?: boolean
  } = {},
): Promise<ProgramEnd> {
  return new Promise((resolve, reject) => {
    const file = errFile === undefined ? null : openSync(errFile, 'a', 0o600)
    const child = spawn(program, args, {
      stdio: ['ignore', 'pipe', file ?? 'pipe'],
      detached: ownGroup,
      ...(env ? { env } : {}),
    })
    if (file !== null) closeSync(file)
    let out = ''
    let err = ''
    const end = () => child.kill('SIGTERM')
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      if (onOutput) onOutput(text)
      else out = (out + text).slice(-KEPT_CHARACTERS)
    })
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      err = (err + text).slice(-KEPT_CHARACTERS)
    })
    child.once('error', reject)
    child.once('close', (code) => {
      signal?.removeEventListener('abort', end)
      resolve({ code, out, err: err.trim() })
    })
    signal?.addEventListener('abort', end)
    if (signal?.aborted) end()
  })
}
