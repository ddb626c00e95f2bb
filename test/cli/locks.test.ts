import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { EXIT } from '../../src/cli/command.ts'
import { LiveSheep } from '../tools/live-sheep.ts'
import { runCommandLine } from './live-node.ts'

/** Locks as QEMU and tgt take them, seen and ended by an operator. */

let live: LiveSheep
beforeAll(async () => {
  live = await LiveSheep.start()
})
afterAll(() => live.stop())

const collie = (...words: string[]) =>
  runCommandLine([...words, '--data-dir', path.dirname(live.address)], { input: [] })

describe('a lock', () => {
  it('is listed, keeps others from changing or deleting the VDI, and is ended', async () => {
    expect((await collie('vdi', 'create', 'disk', '1M')).code).toBe(EXIT.OK)
    await live.sheep.locks.take('disk', false, { id: 4711, peer: '192.0.2.7:4711', cut: () => {} })
    expect((await collie('vdi', 'lock', 'list')).out).toMatch(/^NAME +KIND +HOSTS\ndisk +exclusive +192\.0\.2\.7$/)
    expect(JSON.parse((await collie('vdi', 'lock', 'list', '--json')).out)).toEqual([
      { name: 'disk', shared: false, hosts: ['192.0.2.7'] },
    ])
    const advice = /"disk" is in use: 192\.0\.2\.7 has it locked; .*collie vdi lock unlock disk/
    for (const line of ['vdi delete disk', 'vdi write disk']) {
      const { code, err } = await collie(...line.split(' '))
      expect({ line, code }).toEqual({ line, code: EXIT.TRY_LATER })
      expect(err).toMatch(advice)
    }
    expect((await collie('vdi', 'snapshot', 'disk', '--tag', 'now')).code).toBe(EXIT.OK)
    const rollback = await collie('vdi', 'rollback', 'disk', '-s', 'now', '--force')
    expect(rollback.code).toBe(EXIT.TRY_LATER)
    expect(rollback.err).toMatch(advice)

    expect((await collie('vdi', 'lock', 'unlock', 'disk')).out).toBe('"disk" is not locked any more.')
    expect(JSON.parse((await collie('vdi', 'lock', 'list', '--json')).out)).toEqual([])
    expect((await collie('vdi', 'lock', 'unlock', 'disk')).code).toBe(EXIT.NO_INPUT)
    expect((await collie('vdi', 'delete', 'disk', '--with-snapshots')).code).toBe(EXIT.OK)
  })
})
