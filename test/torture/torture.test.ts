import { spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { expect, it, vi } from 'vitest'
import { withCorosync } from '../tools/corosync-cluster.ts'
import { ENDS_WITH_US } from '../tools/leftovers.ts'
import { readOptions } from './options.ts'
import type { TortureReport } from './report.ts'

vi.setConfig({ testTimeout: 400_000 })

const PROGRAM = ['--import', 'tsx', path.join(import.meta.dirname, 'main.ts')]

/** A client waits for detection, the lease and half a second: 5 s. The rest is for machines that do much else at the time. */
const STALL_MS_MAX = 30_000

it('does not guess what it is asked to do', () => {
  expect(readOptions(['--help'])).toBeNull()
  expect(readOptions(['--faults', 'rot,cut'])).toMatchObject({ faults: ['rot', 'cut'], nodes: 3, group: 'corosync' })
  for (const words of [['--faults', 'flood'], ['--nodes', '2'], ['--group', 'hub'], ['--minutes', 'ten'], ['--what']]) {
    expect(() => readOptions(words), words.join(' ')).toThrow(TypeError)
  }
})

withCorosync.test('three nodes on corosync lose nothing to kills, a stop, a cut and a cold start', async () => {
  const words = ['--faults', 'kill,pause,cut,kill-all', '--hold', '4', '--gateways', '0', '--seed', '1', '--json']
  const [command, ...rest] = [...ENDS_WITH_US, process.execPath, ...PROGRAM, ...words] as [string, ...string[]]
  const child = spawn(command, rest, { stdio: ['ignore', 'pipe', 'pipe'] })
  const [out, err] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')])
  if (child.exitCode !== 0) throw new Error(`torture ended with ${child.exitCode}:\n${out}\n${err}`)
  const report: TortureReport = JSON.parse(out)
  console.info(report)
  expect(report.findings).toEqual([])
  expect(report.faults.map(({ kind }) => kind)).toEqual(['kill', 'pause', 'cut', 'kill-all'])
  expect(report.writer.acknowledged).toBeGreaterThan(100)
  expect(report.objectsCompared).toBeGreaterThan(8)
  for (const { kind, maxMs } of report.faults) expect(maxMs, kind).toBeLessThan(STALL_MS_MAX)
})
