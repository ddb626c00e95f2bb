import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, vi } from 'vitest'
import type { Result } from '../../src/control/methods.ts'
import { CinderApi } from '../tools/cinder-api.ts'
import type { Collie } from '../tools/collie.ts'
import { withEtcd } from '../tools/etcd-cluster.ts'
import { Verifier } from '../tools/verifier.ts'
import { POLL_MS, ThreeNodes } from './three-nodes.ts'

const GIB = 1024 ** 3

vi.setConfig({ testTimeout: 300_000 })

withEtcd.test('three nodes keep what was acknowledged, whichever of them are killed', async () => {
  const directory = mkdtempSync(path.join(tmpdir(), 'collie-cluster-'))
  const three = await ThreeNodes.start()
  const [first, second, third] = three.nodes as [Collie, Collie, Collie]
  const verifier = new Verifier({ seed: 1, ledgerPath: path.join(directory, 'ledger'), sizeBytes: GIB })
  const writes = async () => (await verifier.tally()).writes
  const writesOn = async () => {
    const before = await writes()
    while ((await writes()) < before + 20) await sleep(POLL_MS)
  }
  try {
    const api = new CinderApi(`${first.dataDir}/openrc`)
    const volumeId = await api.createVolume({ size: 1 })
    await api.until('volume', volumeId, 'available')
    const attached = await api.attach(volumeId)

    expect(await verifier.run(three.gateway(1, attached))).toBe(true)
    await writesOn()

    // A node that the client has nothing to do with: it feels a pause.
    await third.kill('SIGKILL')
    await writesOn()
    await third.start()
    await three.untilWell(0)
    await writesOn()

    // The gateway of the client: it goes on at another one.
    await second.kill('SIGKILL')
    while (!(await verifier.run(three.gateway(2, attached)))) await sleep(POLL_MS)
    await writesOn()
    await second.start()
    await three.untilWell(2)

    // All at once, and back in another order.
    await Promise.all(three.nodes.map((node) => node.kill('SIGKILL')))
    for (const node of [third, first, second]) await node.start()
    await three.untilWell(0)
    while (!(await verifier.run(three.gateway(0, attached)))) await sleep(POLL_MS)
    await writesOn()
    await verifier.pause()
    expect(await verifier.run(three.gateway(1, attached))).toBe(true)
    await verifier.pause()
    console.info(await verifier.tally())

    await api.detach(attached.id)
    await api.delete('volume', volumeId)
    await api.untilGone('volume', volumeId)

    await second.ask('cluster', 'recovery', 'throttle', '100M')
    const shown = await third.ask<Result<'recovery_status'>>('cluster', 'recovery', 'show')
    expect(shown.limit_bytes_per_second).toBe(100 * 1024 * 1024)

    const ended = three.nodes.map((node) => node.ended())
    expect(await second.ask('cluster', 'shutdown')).toEqual({ unreached: [] })
    expect(await Promise.all(ended)).toEqual([0, 0, 0])
    for (const node of [second, third, first]) await node.start()
    await three.untilWell(1)
  } finally {
    await verifier.kill()
    await three.dispose()
    rmSync(directory, { recursive: true })
  }
})
