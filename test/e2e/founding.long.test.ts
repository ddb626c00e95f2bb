import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, vi } from 'vitest'
import type { Result } from '../../src/control/methods.ts'
import { CinderApi, type Connected } from '../tools/cinder-api.ts'
import { Collie } from '../tools/collie.ts'
import { EtcdCluster, withEtcd } from '../tools/etcd-cluster.ts'
import { NbdClient } from '../tools/nbd-client.ts'

/** Some objects, and not whole ones. */
const BYTES = 10 << 20
const POLL_MS = 100
const SETTLE_MS = 90_000

type Status = Result<'cluster_status'>

vi.setConfig({ testTimeout: 300_000 })

async function write(at: Connected, parts: readonly [offset: number, length: number, fill: number][]): Promise<void> {
  const client = await NbdClient.connect(at.address, at.name)
  for (const [offset, length, fill] of parts) await client.write(offset, Buffer.alloc(length, fill))
  await client.flush()
  await client.disconnect()
}

/** Through the gateway of any node. */
async function read(node: Collie, { name }: Connected): Promise<Buffer> {
  const client = await NbdClient.connect(node.info.addresses.nbd!, name)
  try {
    return await client.read(0, BYTES)
  } finally {
    await client.disconnect()
  }
}

async function until(node: Collie, isSo: (status: Status) => boolean): Promise<void> {
  const endMs = Date.now() + SETTLE_MS
  for (;;) {
    const status = await node.ask<Status>('cluster', 'status')
    if (status.is_acting && isSo(status)) return
    if (Date.now() > endMs) throw new Error(`not so after ${SETTLE_MS} ms: ${JSON.stringify(status)}`)
    await sleep(POLL_MS)
  }
}

withEtcd.test('a node with volumes becomes the first of three, and may then be lost', async () => {
  const etcd = await EtcdCluster.start(1)
  const first = await Collie.create('--zone=1')
  const others = [await Collie.create('--zone=2'), await Collie.create('--zone=3')]
  const settingsOf = (node: Collie) => `--config=${path.join(node.dataDir, 'collie.yaml')}`
  try {
    await first.start()
    const api = new CinderApi(path.join(first.dataDir, 'openrc'))
    const volume = async (of: object = {}) => {
      const id = await api.createVolume({ size: 1, ...of })
      await api.until('volume', id, 'available')
      return id
    }
    const snapshot = async (volumeId: string) => {
      const id = await api.createSnapshot(volumeId, 'snapshot')
      await api.until('snapshot', id, 'available')
      return id
    }
    const kept = await volume()
    const keptAt = await api.attach(kept)
    await write(keptAt, [
      [0, 300_000, 1],
      [4 << 20, 5 << 20, 2],
    ])
    const taken = await snapshot(kept)
    await write(keptAt, [[100_000, 50_000, 3]])
    await snapshot(kept)
    await write(keptAt, [[20_000, 40_000, 4]])
    const clone = await volume({ snapshot_id: taken })
    const cloneAt = await api.attach(clone)
    await write(cloneAt, [[5 << 20, 9000, 5]])

    // A clone of what is deleted.
    const gone = await volume()
    const goneAt = await api.attach(gone)
    await write(goneAt, [[0, 6 << 20, 6]])
    const goneSnapshot = await snapshot(gone)
    const orphan = await volume({ snapshot_id: goneSnapshot })
    await api.detach(goneAt.id)
    await api.delete('snapshot', goneSnapshot)
    await api.untilGone('snapshot', goneSnapshot)
    await api.delete('volume', gone)
    await api.untilGone('volume', gone)
    const orphanAt = await api.attach(orphan)
    await write(orphanAt, [[1 << 20, 5000, 7]])
    expect((await first.command('vdi', 'attr', 'set', `volume-${kept}`, 'colour', 'blue')).code).toBe(0)

    const attached = [keptAt, cloneAt, orphanAt]
    const before = await Promise.all(attached.map((at) => read(first, at)))
    expect(before.map((bytes) => [bytes[110_000], bytes[30_000], bytes[5 << 20]])).toEqual([
      [3, 4, 2],
      [1, 1, 5],
      [6, 6, 6],
    ])
    const expectSame = async (node: Collie) => {
      for (const [i, at] of attached.entries())
        expect([node.dataDir, i, (await read(node, at)).equals(before[i]!)]).toEqual([node.dataDir, i, true])
    }

    const cluster = ['--cluster', `etcd://${etcd.endpoints[0]}/collie`]
    const made = await first.ask<{ held: Result<'cluster_founding'>; next: string[] }>(
      ...['cluster', 'init', '--address', '127.0.0.1', ...cluster],
    )
    expect(made.held).toMatchObject({ vdis: 3, snapshots: 2, obstacles: [] })
    expect(await first.kill('SIGTERM')).toBe(0)
    first.addFlags(settingsOf(first))
    await first.start()
    await until(first, ({ families_to_bring_home: unclean }) => unclean === 0)
    await expectSame(first)

    const { token } = await first.ask<{ token: string }>('cluster', 'join-info', settingsOf(first))
    for (const node of others) {
      expect((await node.command('cluster', 'join', token, '--address', '127.0.0.1')).code).toBe(0)
      node.addFlags(settingsOf(node))
    }
    await Promise.all(others.map((node) => node.start()))
    const [second, third] = others as [Collie, Collie]
    await until(second, ({ nodes }) => nodes.length === 3)
    await expectSame(third)
    expect((await third.command('cluster', 'audit')).code).toBe(0)

    for (const id of [kept, clone, orphan])
      expect((await first.command('vdi', 'alter-copies', `volume-${id}`, '3')).code).toBe(0)
    for (const node of [first, second, third])
      await until(node, (status) => status.families_to_bring_home === 0 && status.nodes.every((each) => each.is_voter))

    await first.kill('SIGKILL')
    await until(third, ({ nodes }) => nodes.length === 2)
    await expectSame(second)
    await expectSame(third)
    expect((await second.command('vdi', 'attr', 'get', `volume-${kept}`, 'colour')).out).toBe('blue')
    await write({ ...keptAt, address: third.info.addresses.nbd! }, [[0, 4096, 9]])
    expect((await read(second, keptAt))[0]).toBe(9)
    expect((await first.command('serve', '--cluster=single')).err).toContain('a store of the cluster')
  } finally {
    await Promise.all([first, ...others].map((node) => node.dispose()))
    await etcd.stop()
  }
})
