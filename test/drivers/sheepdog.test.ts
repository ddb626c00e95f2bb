import { randomUUID } from 'node:crypto'
import { pino } from 'pino'
import { describe, expect, it } from 'vitest'
import type { VolumeDriver } from '../../src/drivers/driver.ts'
import { createSheepdogDriver, sheepdogPool } from '../../src/drivers/sheepdog/driver.ts'
import {
  delayFilter,
  errorFilter,
  logFilter,
  nthCall,
  onAnyMethod,
  onMethod,
  timeoutFilter,
  wrapDriver,
} from '../../src/drivers/wrappers.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import { createBackends } from '../../src/services/backends.ts'
import { BLOCK_BYTES } from '../../src/sheep/object-format.ts'
import { runOperation } from '../../src/sheep/ops.ts'
import { Sheep } from '../../src/sheep/sheep.ts'
import { VdiClient } from '../../src/vdi/client.ts'
import { hashExportName } from '../../src/vdi/export-name.ts'
import type { Transport } from '../../src/vdi/transport.ts'
import { SimClock } from '../sim/clock.ts'
import { SimDisk } from '../sim/disk.ts'
import { SeededRandom } from '../sim/random.ts'
import { LiveSheep } from '../tools/live-sheep.ts'
import { type DriverHarness, describeDriverContract, type Initiator } from './contract.ts'
import { initiatorOn } from './initiator.ts'

/** A sheep that a driver under test talks to. */
interface Backend {
  transport(): Transport
  readonly sheep: Sheep
  restart(): Promise<void>
  stop(): Promise<void>
}

/** A sheep in this process on a simulated disk, whose restarts are losses of power. */
async function simulatedBackend(): Promise<Backend> {
  const random = new SeededRandom(1)
  const clock = new SimClock(random)
  const disk = new SimDisk(random, clock)
  let isRunning = true
  const pump = () => {
    if (!isRunning) return
    clock.step()
    setImmediate(pump)
  }
  pump()
  const open = () =>
    Sheep.open({
      disk: disk.mount(),
      clock: clock.mount(),
      random,
      log: pino({ level: 'silent' }),
      address: '127.0.0.1:7000',
      zone: 0,
      segmentBytes: 500 * BLOCK_BYTES,
      durability: 'flush',
      reserveBytes: 0,
      copies: 1,
      onFailed: (error) => {
        throw error
      },
    })
  let sheep = await open()
  return {
    get sheep() {
      return sheep
    },
    transport: () => ({
      submit: (request, done) =>
        runOperation(sheep, request, null, (reply) => done({ opcode: request.opcode, ...reply })),
      close: () => {},
    }),
    restart: async () => {
      disk.powerLoss()
      sheep = await open()
    },
    stop: async () => {
      isRunning = false
    },
  }
}

/** A sheep behind its unix socket. */
async function liveBackend(): Promise<Backend> {
  const live = await LiveSheep.start()
  return {
    get sheep() {
      return live.sheep
    },
    transport: () => live.dial(),
    restart: () => live.restart(),
    stop: () => live.stop(),
  }
}

function driverOn(backend: Backend): VolumeDriver {
  return createSheepdogDriver({
    vdis: new VdiClient(backend.transport()),
    random: systemRandom,
    pool: sheepdogPool('pool'),
    gateway: async () => ({ scheme: 'nbd', host: '127.0.0.1', port: 10809 }),
    drained: async () => {},
  })
}

async function makeHarness(backend: Backend, makeDriver = () => driverOn(backend)): Promise<DriverHarness> {
  const start = async (): Promise<VolumeDriver> => {
    const driver = makeDriver()
    await driver.start()
    return driver
  }
  let driver = await start()
  let vdis = new VdiClient(backend.transport())
  /** In and out again, as a tool on the node. */
  const through = async <T>(volumeId: string, readOnly: boolean, use: (initiator: Initiator) => Promise<T>) => {
    const initiator = initiatorOn(await vdis.open(await vdis.lookup(`volume-${volumeId}`), { readOnly }))
    try {
      return await use(initiator)
    } finally {
      await initiator.close()
    }
  }
  return {
    get driver() {
      return driver
    },
    read: (volumeId, offset, lengthBytes) => through(volumeId, true, (it) => it.read(offset, lengthBytes)),
    write: (volumeId, offset, data) => through(volumeId, false, (it) => it.write(offset, data)),
    copiesOf: async (volumeId) => {
      const vdi = (await vdis.listOf(`volume-${volumeId}`)).find(({ snapshotAt }) => snapshotAt === 0)!
      return { copies: vdi.copies, ...(vdi.copiesMin !== undefined && { copiesMin: vdi.copiesMin }) }
    },
    connect: async (info) =>
      initiatorOn(await vdis.openExport(hashExportName(String(info.name)), info.access_mode === 'ro')),
    restart: async () => {
      await driver.stop()
      vdis.close()
      await backend.restart()
      vdis = new VdiClient(backend.transport())
      driver = await start()
    },
    used: async () => {
      await backend.sheep.reclaimed()
      const { sound, problems, objects } = await backend.sheep.audit()
      expect(problems).toEqual([])
      expect(sound).toBe(true)
      return objects
    },
    stop: async () => {
      await driver.stop()
      vdis.close()
      await backend.stop()
    },
  }
}

describeDriverContract('the Sheepdog driver on a sheep in its process', async () =>
  makeHarness(await simulatedBackend()),
)
describeDriverContract('the Sheepdog driver on a sheep behind a socket', async () => makeHarness(await liveBackend()))
describeDriverContract('the Sheepdog driver of the second of two backends', async () => {
  const [first, second] = [await liveBackend(), await liveBackend()]
  const bystander = driverOn(first)
  const harness = await makeHarness(second, () => {
    const backends = [bystander, driverOn(second)].map((driver, index) => ({
      name: index === 0 ? 'first' : 'second',
      availabilityZone: 'nova',
      driver,
    }))
    return createBackends(backends).driverOf('any-host@second#pool')
  })
  const stop = async () => {
    await harness.stop()
    expect((await first.sheep.audit()).objects).toBe(0) // nothing of it came to the other one
    await bystander.stop()
    await first.stop()
  }
  return Object.create(harness, { stop: { value: stop } })
})
describeDriverContract('the Sheepdog driver behind filters that let everything pass', async () => {
  const backend = await liveBackend()
  return makeHarness(backend, () =>
    wrapDriver(
      driverOn(backend),
      logFilter(pino({ level: 'silent' }), systemClock),
      timeoutFilter(onAnyMethod(), systemClock, 60_000),
      delayFilter(onMethod('createVolume', 'createSnapshot'), systemClock, 1),
      errorFilter(nthCall(1_000_000, onAnyMethod()), 'after'),
    ),
  )
})

describe('the Sheepdog driver', () => {
  const connector = { host: 'h' }
  const volumeOf = (sizeGib = 1) => ({ id: randomUUID(), sizeGib })

  async function withHarness(use: (harness: DriverHarness, backend: Backend) => Promise<void>): Promise<void> {
    const backend = await simulatedBackend()
    const harness = await makeHarness(backend)
    try {
      await use(harness, backend)
    } finally {
      await harness.stop()
    }
  }

  it('does several things with one volume at a time', async () => {
    await withHarness(async ({ driver, write, read }) => {
      const volume = volumeOf()
      await driver.createVolume(volume)
      await write(volume.id, 0, Buffer.alloc(4096, 1))
      const snapshots = [1, 2, 3].map(() => ({ id: randomUUID(), volumeId: volume.id, sizeGib: 1 }))
      const clones = [volumeOf(), volumeOf()]
      await Promise.all([
        ...snapshots.map((snapshot) => driver.createSnapshot(snapshot)),
        ...clones.map((clone) => driver.createClonedVolume(clone, volume)),
        driver.extendVolume(volume, 2),
        driver.createExport(volume, { id: randomUUID(), mode: 'rw', connector }),
      ])
      const copy = volumeOf()
      await driver.createVolumeFromSnapshot(copy, snapshots[2]!)
      for (const { id } of [...clones, copy, volume]) expect(await read(id, 0, 4096)).toEqual(Buffer.alloc(4096, 1))
      expect(await read(volume.id, 2 * 1024 ** 3 - 512, 512)).toEqual(Buffer.alloc(512))
    })
  })

  it('lets a clone that was given up go with its volume', async () => {
    await withHarness(async ({ driver, write, used }, backend) => {
      const volume = volumeOf()
      await driver.createVolume(volume)
      await write(volume.id, 0, Buffer.alloc(4096, 1))
      // What a crash in the middle of createClonedVolume leaves: the snapshot that the clone would be made from.
      const vdis = new VdiClient(backend.transport())
      await vdis.snapshot(await vdis.lookup(`volume-${volume.id}`), `clone-${randomUUID()}`)
      await driver.deleteVolume(volume)
      expect(await used()).toBe(0)
    })
  })

  it('takes back with a volume the rights that are left, as of a call that was given up and ended later', async () => {
    await withHarness(async ({ driver, connect }) => {
      const volume = volumeOf()
      await driver.createVolume(volume)
      const attachment = { id: randomUUID(), mode: 'rw' as const, connector }
      const initiator = await connect(await driver.createExport(volume, attachment))
      await driver.deleteVolume(volume)
      await expect(initiator.read(0, 512)).rejects.toMatchObject({ code: 'Fenced' })
    })
  })

  it('takes over a VDI of any name and size, which has whole GiB from then on', async () => {
    await withHarness(async ({ driver, read }, backend) => {
      const vdis = new VdiClient(backend.transport())
      const vid = await vdis.create('somebody else made it', 1024 ** 3 + 512)
      await vdis.snapshot(vid, 'before')
      const { volumes, snapshots } = (await driver.listManageable?.())!
      expect(volumes).toEqual([{ name: 'somebody else made it', volumeId: null, sizeGib: 2, reason: null }])
      expect(snapshots).toMatchObject([{ name: 'before', snapshotId: null, volumeName: 'somebody else made it' }])
      const volume = volumeOf(2)
      expect(await driver.manageVolume?.(volume, 'somebody else made it')).toEqual({ sizeGib: 2 })
      expect(await read(volume.id, 2 * 1024 ** 3 - 512, 512)).toEqual(Buffer.alloc(512))
      const snapshot = { id: randomUUID(), volumeId: volume.id, sizeGib: 2 }
      await driver.manageSnapshot?.(snapshot, 'before')
      await driver.deleteSnapshot(snapshot)
      await driver.deleteVolume(volume)
      expect(await driver.listManageable?.()).toEqual({ volumes: [], snapshots: [] })
    })
  })

  it('does not delete a volume that a tool on the node has open', async () => {
    await withHarness(async ({ driver }, backend) => {
      const volume = volumeOf()
      await driver.createVolume(volume)
      const vdis = new VdiClient(backend.transport())
      const device = await vdis.open(await vdis.lookup(`volume-${volume.id}`), { readOnly: true })
      await expect(driver.deleteVolume(volume)).rejects.toMatchObject({ code: 'InvalidVolume' })
      await device.close()
      await driver.deleteVolume(volume)
    })
  })

  it('tells connection information that an NBD client can use as it is', async () => {
    await withHarness(async ({ driver }) => {
      const volume = volumeOf()
      await driver.createVolume(volume)
      const info = await driver.createExport(volume, { id: randomUUID(), mode: 'ro', connector })
      expect(info).toMatchObject({
        driver_volume_type: 'nbd',
        hosts: ['127.0.0.1'],
        ports: ['10809'],
        access_mode: 'ro',
      })
      expect(info.uri).toBe(`nbd://127.0.0.1:10809/${info.name}`)
      expect(String(info.name)).toMatch(/^[0-9a-f]{48}$/)
    })
  })

  it('puts an IPv6 address in brackets, and says when the gateway wants TLS', async () => {
    const backend = await simulatedBackend()
    const vdis = new VdiClient(backend.transport())
    const driver = createSheepdogDriver({
      vdis,
      random: systemRandom,
      pool: sheepdogPool('pool'),
      gateway: async () => ({ scheme: 'nbds', host: '::1', port: 1 }),
      drained: async () => {},
    })
    const volume = volumeOf()
    await driver.createVolume(volume)
    const info = await driver.createExport(volume, { id: randomUUID(), mode: 'rw', connector })
    expect(info.uri).toBe(`nbds://[::1]:1/${info.name}`)
    await backend.stop()
  })

  it('waits for the gateway before it says that a right is gone', async () => {
    const backend = await simulatedBackend()
    const order: string[] = []
    const driver = createSheepdogDriver({
      vdis: new VdiClient(backend.transport()),
      random: systemRandom,
      pool: sheepdogPool('pool'),
      gateway: async () => ({ scheme: 'nbd', host: '127.0.0.1', port: 1 }),
      drained: async (attachmentId) => {
        order.push(`drained ${attachmentId}, ${backend.sheep.state.exports.has(attachmentId) ? 'held' : 'gone'}`)
      },
    })
    const volume = volumeOf()
    await driver.createVolume(volume)
    await driver.createExport(volume, { id: 'a', mode: 'rw', connector })
    await driver.removeExport(volume, 'a')
    expect(order).toEqual(['drained a, held', 'drained a, gone'])
    await backend.stop()
  })

  it('names a store that it cannot reach', async () => {
    const live = await LiveSheep.start()
    const vdis = new VdiClient(live.dial())
    const driver = createSheepdogDriver({
      vdis,
      random: systemRandom,
      pool: sheepdogPool('pool'),
      gateway: async () => ({ scheme: 'nbd', host: '127.0.0.1', port: 1 }),
      drained: async () => {},
    })
    await live.stop()
    await expect(driver.start()).rejects.toMatchObject({ code: 'ServiceUnavailable' })
    await expect(driver.createVolume(volumeOf())).rejects.toThrow(/the connection to the node was lost/)
  })
})
