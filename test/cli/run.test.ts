import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { type Command, EXIT } from '../../src/cli/command.ts'
import { allCommands } from '../../src/cli/commands.ts'
import { runCli } from '../../src/cli/run.ts'
import { formatBytes, table } from '../../src/cli/table.ts'
import type { Handlers } from '../../src/control/methods.ts'
import { listenControl } from '../../src/control/socket-carrier.ts'
import { StoreError } from '../../src/errors.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { systemNetwork } from '../../src/runtime/network.ts'
import { processIo } from '../../src/runtime/process-io.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import { SETTINGS } from '../../src/settings.ts'
import { VERSION } from '../../src/version.ts'

const COMMANDS = allCommands({ network: systemNetwork, clock: systemClock, random: systemRandom })

const cleanups: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

const io = processIo()

async function collie(
  args: readonly string[],
  env: Record<string, string> = {},
  commands: readonly Command[] = COMMANDS,
) {
  const out: string[] = []
  const err: string[] = []
  const code = await runCli(args, commands, {
    ...io,
    env,
    out: (text) => void out.push(text),
    err: (text) => void err.push(text),
  })
  return { code, out: out.join('\n'), err: err.join('\n') }
}

function dataDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'collie-'))
  cleanups.push(() => rmSync(directory, { recursive: true }))
  return directory
}

/** A data directory on which a node with these answers runs. */
async function node(handlers: Handlers): Promise<string> {
  const directory = dataDirectory()
  const onDefect = (error: unknown) => expect.unreachable(String(error))
  const listener = await listenControl(systemNetwork, join(directory, 'control.sock'), handlers, { onDefect })
  cleanups.push(() => listener.close())
  return directory
}

describe('the command line', () => {
  it('prints the version', async () => {
    expect(await collie(['version'])).toEqual({ code: EXIT.OK, out: `collie ${VERSION}`, err: '' })
    expect(JSON.parse((await collie(['version', '--json'])).out)).toEqual({ version: VERSION })
  })

  it.each([
    [[], 'which command?'],
    [['nonsense'], '`collie nonsense`: there is no such command'],
    [['vdi', 'lst'], 'vdi list'],
    [['vdi', 'list', '--jsn'], 'there is no option --jsn; did you mean --json?'],
    [['vdi', 'list', '--data-dir'], '--data-dir'],
    [['node', 'info', 'extra'], '"extra" is one word too many'],
    [['nod', '--size', '3'], '`collie nod 3`: there is no such command'],
  ])('answers a wrong call %j with EX_USAGE', async (args, message) => {
    const { code, out, err } = await collie(args)
    expect(code).toBe(EXIT.USAGE)
    expect(out).toBe('')
    expect(err).toContain(message)
  })

  it('answers settings that cannot be used with EX_CONFIG', async () => {
    const { code, err } = await collie(['config', 'show', '--listen', 'nonsense'])
    expect(code).toBe(EXIT.CONFIG)
    expect(err).toContain('listen: expected host:port')
  })

  it('answers a defect of ours with EX_SOFTWARE', async () => {
    const broken: Command = { name: 'break', summary: '.', run: () => Promise.reject(new TypeError('oops')) }
    const { code, err } = await collie(['break'], {}, [broken])
    expect(code).toBe(EXIT.INTERNAL)
    expect(err).toContain('oops')
  })

  it('answers what the system refuses with EX_UNAVAILABLE', async () => {
    const directory = dataDirectory()
    const listen: Command = {
      name: 'listen',
      summary: '.',
      run: async () => {
        await systemNetwork.listen(join(directory, 'absent', 'sock'), () => {})
        return EXIT.OK
      },
    }
    expect((await collie(['listen'], {}, [listen])).code).toBe(EXIT.UNAVAILABLE)
  })
})

describe('collie config show', () => {
  it('prints every setting with its source', async () => {
    const { out, err } = await collie(['config', 'show', '--log-level=warn'], {
      COLLIE_QUOTA_VOLUMES: '5',
      COLLIE_NONE: '1',
    })
    const lines = out.split('\n')
    expect(lines).toHaveLength(SETTINGS.length + 1)
    expect(lines.find((line) => line.startsWith('log.level '))).toMatch(/^log\.level +warn +--log-level +The least/)
    expect(lines.find((line) => line.startsWith('quota.volumes '))).toMatch(/ 5 +COLLIE_QUOTA_VOLUMES /)
    expect(lines.find((line) => line.startsWith('advertise '))).toMatch(/ - +default /)
    expect(lines.find((line) => line.startsWith('roles '))).toContain('api,store,gateway')
    expect(err).toContain('COLLIE_NONE')
  })

  it('shows where a secret leads, and not the secret', async () => {
    const url = 'postgres://collie:hidden@db.example/cinder?password=hidden'
    const { out } = await collie(['config', 'show', '--json', `--database=${url}`])
    expect(out).not.toContain('hidden')
    expect(JSON.parse(out)).toContainEqual(
      expect.objectContaining({ name: 'database', value: 'postgres://…@db.example/cinder' }),
    )
  })

  it('prints them as JSON', async () => {
    const settings = JSON.parse((await collie(['config', 'show', '--json', '--copies', '1'])).out)
    expect(settings).toContainEqual({ name: 'copies', value: 1, source: '--copies', description: expect.any(String) })
    expect(settings).toHaveLength(SETTINGS.length)
  })
})

describe('commands that ask the running node', () => {
  it('finds the node by the data directory, wherever that was set', async () => {
    const directory = await node({ vdi_list: async () => ({ vdis: [] }) })
    expect((await collie(['vdi', 'list', '--data-dir', directory])).code).toBe(EXIT.OK)
    expect((await collie(['vdi', 'list'], { COLLIE_DATA_DIR: directory })).code).toBe(EXIT.OK)
  })

  it('says what the node and the cluster are', async () => {
    const info = {
      pid: 42,
      version: VERSION,
      data_dir: 'd',
      roles: ['api', 'store'],
      addresses: { api: '127.0.0.1:8776' },
    }
    const cluster = {
      status: 'running',
      epoch: 3,
      copies: 1,
      total_bytes: 2 ** 40,
      free_bytes: 2 ** 39,
      provisioned_bytes: 2 ** 38,
      allocated_bytes: 2 ** 37,
      nodes: [
        {
          address: '127.0.0.1:7000',
          zone: 1,
          vnodes: 128,
          total_bytes: 10,
          free_bytes: 5,
          failed_disks: 0,
          is_answering: true,
        },
      ],
    }
    const stats = { store: { objects: 3 }, nbd: { connections: 1 } }
    const directory = await node({
      info: async () => info,
      cluster_info: async () => cluster,
      stats: async () => stats,
    })
    const ask = (...args: string[]) => collie([...args, '--data-dir', directory])
    expect((await ask('node', 'info')).out).toMatch(/^process +42\n.*^roles +api, store\n^api +127\.0\.0\.1:8776$/ms)
    expect((await ask('cluster', 'info')).out).toMatch(
      /512\.0 GiB free of 1\.0 TiB.*^127\.0\.0\.1:7000 +1 +128 +10 B +5 B +ok$/ms,
    )
    expect((await ask('node', 'stats')).out).toBe('store.objects    3\nnbd.connections  1')
    expect(JSON.parse((await ask('node', 'info', '--json')).out)).toEqual(info)
    expect(JSON.parse((await ask('cluster', 'info', '--json')).out)).toEqual(cluster)
    expect(JSON.parse((await ask('node', 'stats', '--json')).out)).toEqual(stats)
  })

  it('exits with EX_DATAERR when the store is not sound', async () => {
    const finding = { kind: 'orphan', detail: '007c2b2500000005', repaired: false, where: null }
    const report = { checked: { objects: 7 }, findings_total: 0 }
    const unsound = await node({ audit: async () => ({ ...report, sound: false, findings: [finding] }) })
    const bad = await collie(['cluster', 'audit', '--data-dir', unsound])
    expect(bad.code).toBe(EXIT.DATA_UNSOUND)
    expect(bad.out).toMatch(/NOT sound.*7 objects.*orphan +007c2b2500000005/s)
    const asked: unknown[] = []
    const where = { vdi: 'disk', snapshot: 'daily', offset_bytes: 8192, length_bytes: 4096 }
    const damaged = await node({
      audit: async (params) => {
        asked.push(params)
        const findings = [
          { ...finding, repaired: true },
          { kind: 'corrupt_block', detail: 'x', repaired: false, where },
        ]
        return { ...report, sound: false, findings, findings_total: 102 }
      },
    })
    const repair = await collie(['cluster', 'audit', '--repair', '--data-dir', damaged])
    expect(repair.code).toBe(EXIT.DATA_UNSOUND)
    expect(repair.out).toMatch(/\(repaired\)\ncorrupt_block +disk@daily offset 8192 length 4096 +x\n… and 100 more\.$/)
    expect(asked).toEqual([{ repair: true }])
    const sound = await node({ audit: async () => ({ ...report, sound: true, findings: [] }) })
    const good = await collie(['cluster', 'audit', '--data-dir', sound])
    expect(good.code).toBe(EXIT.OK)
    expect(good.out).toBe('The store is sound.\nChecked: 7 objects.')
  })

  it('says how far the scrub is, and exits with EX_DATAERR when it has found something', async () => {
    const scrub = {
      state: 'running',
      bytes_per_second: 8 * 2 ** 20,
      round: 3,
      objects_done: 5,
      objects_total: 9,
      bytes_read: 2 ** 20,
      findings: 0,
      repaired: 0,
      damage: [],
      last_round_at: null,
      last_round_findings: 0,
    }
    const damage = [{ vdi: 'disk', snapshot: '', offset_bytes: 0, length_bytes: 4096 }]
    const directory = await node({
      scrub_status: async () => scrub,
      scrub_start: async () => ({ ...scrub, findings: 1, damage }),
      scrub_pause: async () => ({ ...scrub, state: 'paused' }),
    })
    const ask = (...args: string[]) => collie(['cluster', 'scrub', ...args, '--data-dir', directory])
    const status = await ask('status')
    expect(status.code).toBe(EXIT.OK)
    expect(status.out).toMatch(/^state +running\nrate +8\.0 MiB per second\nround +3\nobjects +5 of 9$/m)
    const found = await ask('start')
    expect(found.code).toBe(EXIT.DATA_UNSOUND)
    expect(found.out).toMatch(/\n\ndisk offset 0 length 4096$/)
    expect(JSON.parse((await ask('pause', '--json')).out)).toEqual({ ...scrub, state: 'paused' })
  })

  it('asks the node to stop', async () => {
    let stopped = false
    const directory = await node({
      stop: async () => {
        stopped = true
        return {}
      },
    })
    expect((await collie(['node', 'stop', '--data-dir', directory])).code).toBe(EXIT.OK)
    expect(stopped).toBe(true)
  })

  it('tells what went wrong on the node', async () => {
    const directory = await node({ audit: () => Promise.reject(new StoreError('DiskFailed', 'sda')) })
    const { code, err } = await collie(['cluster', 'audit', '--data-dir', directory])
    expect(code).toBe(EXIT.IO)
    expect(err).toBe('collie: the disk failed: sda')
  })
})

describe('text for people', () => {
  it('aligns columns and leaves no blanks at the ends of lines', () => {
    expect(table([['a', 'bbb', 'c'], ['aa', 'b'], []])).toBe('a   bbb  c\naa  b\n')
    expect(table([])).toBe('')
  })

  it.each([
    [0, '0 B'],
    [1023, '1023 B'],
    [1024, '1.0 KiB'],
    [4 << 20, '4.0 MiB'],
    [1.5 * 2 ** 40, '1.5 TiB'],
    [2 ** 60, '1024.0 PiB'],
  ])('writes %d bytes as %s', (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text)
  })
})
