import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { expect, it, vi } from 'vitest'
import type { Result } from '../../src/control/methods.ts'
import { CinderApi } from '../tools/cinder-api.ts'
import { freePort, MAIN, runCollie } from '../tools/collie.ts'

vi.setConfig({ testTimeout: 240_000 })

interface Shown {
  nodes: { name: string; data_dir: string; addresses: Record<string, string> }[]
}

/** As a user runs it; resolves when it has printed what there is. */
async function run(dataDir: string, flags: readonly string[]): Promise<{ command: ChildProcess; shown: Shown }> {
  const args = [MAIN, 'dev-cluster', '3', '--json', `--data-dir=${dataDir}`, ...flags]
  const command = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  let printed = ''
  for await (const chunk of command.stdout!) {
    printed += String(chunk)
    if (printed.endsWith('\n}\n')) return { command, shown: JSON.parse(printed) }
  }
  throw new Error(`collie dev-cluster ended: ${printed}`)
}

/** Three neighbouring ports for each kind of door. */
async function flagsOf(): Promise<string[]> {
  const [api, sheep, nbd] = [await freePort(), await freePort(2000, 5000), await freePort(5000, 8000)]
  const small = ['--journal-size-mib=16', '--log-level=error']
  return [`--listen=127.0.0.1:${api}`, `--sheep-listen=127.0.0.1:${sheep}`, `--nbd-listen=127.0.0.1:${nbd}`, ...small]
}

it('runs three nodes that are one store, and has its volumes again at the next start', async () => {
  const directory = mkdtempSync(path.join(tmpdir(), 'collie-dev-'))
  const dataDir = path.join(directory, 'dev')
  const flags = await flagsOf()
  let running = await run(dataDir, flags)
  try {
    const [first] = running.shown.nodes
    const ask = async <T>(...words: string[]) => {
      const { code, out, err } = await runCollie(...words, '--json', `--data-dir=${first!.data_dir}`)
      if (code !== 0) throw new Error(err)
      return JSON.parse(out) as T
    }
    const untilIn = () =>
      vi.waitUntil(
        async () => {
          const { nodes, is_acting } = await ask<Result<'cluster_status'>>('cluster', 'status')
          return is_acting && nodes.length === 3
        },
        { timeout: 90_000, interval: 200 },
      )
    await untilIn()
    const api = new CinderApi(path.join(first!.data_dir, 'openrc'))
    const id = await api.createVolume({ size: 1 })
    await api.until('volume', id, 'available')

    const ended = once(running.command, 'exit')
    await ask('cluster', 'shutdown')
    expect((await ended)[0]).toBe(0)

    running = await run(dataDir, flags)
    await untilIn()
    await new CinderApi(path.join(first!.data_dir, 'openrc')).until('volume', id, 'available')

    const stopped = once(running.command, 'exit')
    running.command.kill('SIGINT')
    expect((await stopped)[0]).toBe(0)
  } finally {
    if (running.command.exitCode === null) running.command.kill('SIGTERM')
    rmSync(directory, { recursive: true, force: true })
  }
})

it.each(['0', '10', 'two'])('refuses %s nodes', async (count) => {
  const { code, err } = await runCollie('dev-cluster', count)
  expect(code).toBe(64)
  expect(err).toContain(`N: ${count} is not a number of nodes from 1 to 9`)
})
