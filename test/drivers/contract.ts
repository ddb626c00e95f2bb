import { randomUUID } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  type AttachmentRef,
  type ConnectionInfo,
  MARKED_BYTES,
  type SnapshotRef,
  type VolumeCopies,
  type VolumeDriver,
  type VolumeRef,
} from '../../src/drivers/driver.ts'
import { ServiceError } from '../../src/errors.ts'

/** What the suite needs of a driver under test. The backend is empty at first and belongs to the suite. */
export interface DriverHarness {
  /** The driver of the process that runs now: another one after `restart`. */
  readonly driver: VolumeDriver
  /** Looks at and changes content past the driver, as an initiator with a right of its own would. */
  read(volumeId: string, offset: number, lengthBytes: number): Promise<Buffer>
  write(volumeId: string, offset: number, data: Buffer): Promise<void>
  /** Connects as the initiator that was given the connection information; rejects when the right is refused. */
  connect(info: ConnectionInfo): Promise<Initiator>
  /** How many copies the backend says the volume has. */
  copiesOf(volumeId: string): Promise<VolumeCopies>
  /** Ends the process as a crash would and starts another on the same backend. */
  restart(): Promise<void>
  /** Bytes or objects that the backend holds for volumes and snapshots, once what it reclaims by itself is reclaimed. */
  used(): Promise<number>
  stop(): Promise<void>
}

export interface Initiator {
  read(offset: number, lengthBytes: number): Promise<Buffer>
  write(offset: number, data: Buffer): Promise<void>
  close(): Promise<void>
}

const MIB = 1024 ** 2
const GIB = 1024 ** 3

/** The promises of src/drivers/driver.ts, by their numbers, for any driver. */
export function describeDriverContract(name: string, makeHarness: () => Promise<DriverHarness>): void {
  describe(`${name} keeps the driver contract`, () => {
    let harness: DriverHarness
    beforeAll(async () => {
      harness = await makeHarness()
    })
    afterAll(async () => {
      await harness.stop()
    })

    const newVolume = async (sizeGib = 1): Promise<VolumeRef> => {
      const volume = { id: randomUUID(), sizeGib }
      await harness.driver.createVolume(volume)
      return volume
    }
    const newSnapshot = async (volume: VolumeRef): Promise<SnapshotRef> => {
      const snapshot = { id: randomUUID(), volumeId: volume.id, sizeGib: volume.sizeGib }
      await harness.driver.createSnapshot(snapshot)
      return snapshot
    }
    const attachment = (mode: 'rw' | 'ro' = 'rw'): AttachmentRef => ({
      id: randomUUID(),
      mode,
      connector: { host: 'initiator', ip: '127.0.0.1', initiator: 'iqn.1993-08.org.debian:01:test' },
    })
    const code = async (promise: Promise<unknown>): Promise<string> => {
      try {
        await promise
        return 'done'
      } catch (error) {
        return error instanceof ServiceError ? error.code : String(error)
      }
    }

    const refused = async (info: ConnectionInfo): Promise<boolean> => {
      let initiator: Initiator | undefined
      try {
        initiator = await harness.connect(info)
        await initiator.read(0, 512)
        return false
      } catch {
        return true
      } finally {
        await initiator?.close().catch(() => {})
      }
    }

    it('tells of its pools in GiB', async () => {
      const pools = await harness.driver.stats()
      expect(pools.length).toBeGreaterThan(0)
      for (const pool of pools) {
        const [total, free] = [Number(pool.totalCapacityGib), Number(pool.freeCapacityGib)] // those under test can tell
        expect(total).toBeGreaterThan(0)
        expect(free).toBeLessThanOrEqual(total)
        expect(pool.maxOverSubscriptionRatio).toBeGreaterThanOrEqual(1)
      }
    })

    it('makes volumes that read as zeros to their end', async () => {
      const volume = await newVolume(2)
      expect((await harness.read(volume.id, 0, 8192)).every((byte) => byte === 0)).toBe(true)
      expect((await harness.read(volume.id, 2 * GIB - 4096, 4096)).every((byte) => byte === 0)).toBe(true)
    })

    it('1: a repeated create keeps what was written since', async () => {
      const volume = await newVolume()
      await harness.write(volume.id, 4 * MIB - 2048, Buffer.alloc(4096, 7))
      await harness.driver.createVolume(volume)
      expect(await harness.read(volume.id, 4 * MIB - 2048, 4096)).toEqual(Buffer.alloc(4096, 7))
    })

    it('1: a repeated snapshot keeps the content of the first', async () => {
      const volume = await newVolume()
      await harness.write(volume.id, 0, Buffer.alloc(4096, 1))
      const snapshot = await newSnapshot(volume)
      await harness.write(volume.id, 0, Buffer.alloc(4096, 2))
      await harness.driver.createSnapshot(snapshot)
      const copy = { id: randomUUID(), sizeGib: 1 }
      await harness.driver.createVolumeFromSnapshot(copy, snapshot)
      expect(await harness.read(copy.id, 0, 4096)).toEqual(Buffer.alloc(4096, 1))
      expect(await harness.read(volume.id, 0, 4096)).toEqual(Buffer.alloc(4096, 2))
    })

    it('1: makes volumes with the copies that are asked for, and alters them, once or again', async () => {
      const { driver } = harness
      const most = (await driver.stats())[0]!.sizeFactors.length
      const own = await harness.copiesOf((await newVolume()).id)
      expect(own.copies).toBeLessThanOrEqual(most)
      const wanted = { copies: most, copiesMin: most }
      const volume = { id: randomUUID(), sizeGib: 1, copies: wanted }
      for (const _ of ['once', 'again']) await driver.createVolume(volume)
      await harness.write(volume.id, 0, Buffer.alloc(4096, 1))
      const snapshot = await newSnapshot(volume)
      const [restored, clone] = [1, 2].map(() => ({ ...volume, id: randomUUID() }))
      for (const _ of ['once', 'again']) {
        await driver.createVolumeFromSnapshot(restored!, snapshot)
        await driver.createClonedVolume(clone!, volume)
      }
      for (const { id } of [volume, restored!, clone!]) expect(await harness.copiesOf(id)).toEqual(wanted)
      for (const copies of [{ copies: 1 }, { copies: 1 }, null, null, wanted, wanted]) {
        await driver.alterCopies!(volume, copies)
        const { copies: expected } = copies ?? own
        expect((await harness.copiesOf(volume.id)).copies).toBe(expected)
        expect(await harness.read(volume.id, 0, 4096)).toEqual(Buffer.alloc(4096, 1))
      }
      expect(await harness.copiesOf(clone!.id)).toEqual(wanted)
      expect(await code(driver.alterCopies!({ id: randomUUID(), sizeGib: 1 }, wanted))).toBe('VolumeNotFound')
    })

    it('3: makes no volume with more copies than it has room for', async () => {
      const { driver } = harness
      const most = (await driver.stats())[0]!.sizeFactors.length
      const volume = { id: randomUUID(), sizeGib: 1 }
      expect(await code(driver.createVolume({ ...volume, copies: { copies: most + 1 } }))).toBe('BackendFailure')
      expect(await code(driver.extendVolume(volume, 2))).toBe('VolumeNotFound')
      await driver.createVolume(volume)
      expect(await code(driver.alterCopies!(volume, { copies: most + 1 }))).toBe('BackendFailure')
    })

    it('counts what it has promised, with all copies', async () => {
      const stats = async () => (await harness.driver.stats())[0]!
      const { sizeFactors, provisionedCapacityGib: before } = await stats()
      for (const [index, factor] of sizeFactors.entries()) {
        const volume = { id: randomUUID(), sizeGib: 6, copies: { copies: index + 1 } }
        await harness.driver.createVolume(volume)
        expect((await stats()).provisionedCapacityGib - before).toBeCloseTo(6 * factor)
        await harness.driver.deleteVolume(volume)
      }
    })

    it('opens the bytes of volumes and snapshots for the service', async () => {
      const volume = await newVolume(2)
      const data = await harness.driver.openVolume(volume)
      expect(data.sizeBytes).toBe(2 * GIB)
      await data.write(8 * MIB - 512, Buffer.alloc(9 * MIB, 5))
      await data.discard(10 * MIB, 4 * MIB)
      await data.discard(15 * MIB + 100, 200)
      await data.flush()
      await data.close()
      expect(await harness.read(volume.id, 10 * MIB - 512, 1024)).toEqual(
        Buffer.concat([Buffer.alloc(512, 5), Buffer.alloc(512)]),
      )

      const snapshot = await newSnapshot(volume)
      await harness.write(volume.id, 8 * MIB, Buffer.alloc(4096, 6))
      const frozen = await harness.driver.openSnapshot(snapshot)
      const bytes = Buffer.alloc(4096, 1)
      await frozen.read(8 * MIB, bytes)
      expect(bytes).toEqual(Buffer.alloc(4096, 5))
      const near = Buffer.alloc(400)
      await frozen.read(15 * MIB, near)
      expect(near).toEqual(Buffer.concat([Buffer.alloc(100, 5), Buffer.alloc(200), Buffer.alloc(100, 5)]))
      const extents = await frozen.extents(0, 2 * GIB)
      expect(extents.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)).toBe(2 * GIB)
      expect(extents.map(({ kind }) => kind)).toEqual(['hole', 'data', 'hole', 'data', 'hole'])
      await frozen.close()
      expect(await code(harness.driver.openSnapshot({ ...snapshot, id: randomUUID() }))).toBe('SnapshotNotFound')
    })

    it('names what snapshots hold, so that what did not change is known long after', async () => {
      const { driver } = harness
      const volume = await newVolume()
      const marksOf = async (snapshot: SnapshotRef) => {
        const data = await harness.driver.openSnapshot(snapshot)
        const marks: unknown[] = []
        for (let offset = 0; offset < GIB; offset += MARKED_BYTES) {
          const told = await data.marks!(offset, MARKED_BYTES)
          expect(told.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)).toBe(MARKED_BYTES)
          for (const { mark } of told) expect(mark?.length).toBeLessThanOrEqual(150)
          marks.push(told)
        }
        await data.close()
        return marks
      }
      const changed = (before: unknown[], after: unknown[]) =>
        after.flatMap((mark, chunk) => (isDeepStrictEqual(mark, before[chunk]) ? [] : chunk))
      const write = async (to: VolumeRef, ...writes: [offset: number, bytes: Buffer][]) => {
        const data = await harness.driver.openVolume(to)
        for (const [offset, bytes] of writes) await data.write(offset, bytes)
        return data
      }
      const filled = [0, 2, 25, 255].map((chunk): [number, Buffer] => [chunk * MARKED_BYTES, Buffer.alloc(4096, 1)])
      await (await write(volume, ...filled)).close()
      const first = await newSnapshot(volume)
      const before = await marksOf(first)
      const data = await write(
        volume,
        [2 * MARKED_BYTES + 4096, Buffer.alloc(512, 2)],
        [7 * MARKED_BYTES - 512, Buffer.alloc(1024, 2)],
      )
      await data.discard(25 * MARKED_BYTES, MARKED_BYTES)
      await data.close()
      await driver.deleteSnapshot(first)
      const second = await newSnapshot(volume)
      const after = await marksOf(second)
      expect(changed(before, after)).toEqual([2, 6, 7, 25])

      await harness.restart()
      await harness.driver.deleteSnapshot(second)
      const third = await newSnapshot(volume)
      expect(changed(after, await marksOf(third))).toEqual([])
      const copy = { id: randomUUID(), sizeGib: 1 }
      await harness.driver.createVolumeFromSnapshot(copy, third)
      await (await write(copy, [0, Buffer.alloc(4096, 3)])).close()
      expect(changed(after, await marksOf(await newSnapshot(copy)))).toEqual([0])
    })

    it('does not open a volume for the service that somebody else may write to', async () => {
      const volume = await newVolume()
      const info = await harness.driver.createExport(volume, attachment())
      expect(await code(harness.driver.openVolume(volume))).toBe('InvalidVolume')
      expect(info.driver_volume_type).not.toBe('')
    })

    it('1: repeated copies, extensions and deletions end as one', async () => {
      const volume = await newVolume()
      await harness.write(volume.id, 8192, Buffer.alloc(4096, 3))
      const snapshot = await newSnapshot(volume)
      const fromSnapshot = { id: randomUUID(), sizeGib: 2 }
      const clone = { id: randomUUID(), sizeGib: 1 }
      for (const _ of ['once', 'again']) {
        await harness.driver.createVolumeFromSnapshot(fromSnapshot, snapshot)
        await harness.driver.createClonedVolume(clone, volume)
        await harness.driver.extendVolume(clone, 3)
      }
      expect(await harness.read(fromSnapshot.id, 8192, 4096)).toEqual(Buffer.alloc(4096, 3))
      expect(await harness.read(fromSnapshot.id, 2 * GIB - 4096, 4096)).toEqual(Buffer.alloc(4096))
      expect(await harness.read(clone.id, 8192, 4096)).toEqual(Buffer.alloc(4096, 3))
      expect(await harness.read(clone.id, 3 * GIB - 4096, 4096)).toEqual(Buffer.alloc(4096))
      for (const _ of ['once', 'again']) {
        await harness.driver.deleteSnapshot(snapshot)
        await harness.driver.deleteVolume(volume)
      }
      expect(await harness.read(fromSnapshot.id, 8192, 4096)).toEqual(Buffer.alloc(4096, 3))
      expect(await harness.read(clone.id, 8192, 4096)).toEqual(Buffer.alloc(4096, 3))
    })

    it('2: what a method did is there after a crash', async () => {
      const volume = await newVolume()
      await harness.write(volume.id, 0, Buffer.alloc(4096, 4))
      const snapshot = await newSnapshot(volume)
      await harness.driver.extendVolume(volume, 2)
      await harness.restart()
      expect(await harness.read(volume.id, 0, 4096)).toEqual(Buffer.alloc(4096, 4))
      expect(await harness.read(volume.id, 2 * GIB - 4096, 4096)).toEqual(Buffer.alloc(4096))
      const copy = { id: randomUUID(), sizeGib: 1 }
      await harness.driver.createVolumeFromSnapshot(copy, snapshot)
      expect(await harness.read(copy.id, 0, 4096)).toEqual(Buffer.alloc(4096, 4))
    })

    it('3: names a missing source, and a volume that snapshots hold', async () => {
      const absent = { id: randomUUID(), sizeGib: 1 }
      const target = { id: randomUUID(), sizeGib: 1 }
      const absentSnapshot = { id: randomUUID(), volumeId: absent.id, sizeGib: 1 }
      const { driver } = harness
      expect(await code(driver.createClonedVolume(target, absent))).toBe('VolumeNotFound')
      expect(await code(driver.createVolumeFromSnapshot(target, absentSnapshot))).toBe('SnapshotNotFound')
      expect(await code(driver.extendVolume(absent, 2))).toBe('VolumeNotFound')
      expect(await code(driver.createSnapshot(absentSnapshot))).toBe('VolumeNotFound')
      expect(await code(driver.createExport(absent, attachment()))).toBe('VolumeNotFound')
      const volume = await newVolume()
      const snapshot = await newSnapshot(volume)
      expect(await code(driver.deleteVolume(volume))).toBe('InvalidVolume')
      await driver.deleteSnapshot(snapshot)
      expect(await code(driver.deleteVolume(volume))).toBe('done')
    })

    it('4: deletes what does not exist', async () => {
      const { driver } = harness
      const absent = { id: randomUUID(), sizeGib: 1 }
      expect(await code(driver.deleteVolume(absent))).toBe('done')
      expect(await code(driver.deleteSnapshot({ ...absent, volumeId: absent.id }))).toBe('done')
      expect(await code(driver.removeExport(absent, randomUUID()))).toBe('done')
    })

    it('copies a volume apart: what is written to one is not seen in the other', async () => {
      const volume = await newVolume()
      await harness.write(volume.id, 4 * MIB, Buffer.alloc(4096, 5))
      const clone = { id: randomUUID(), sizeGib: 1 }
      await harness.driver.createClonedVolume(clone, volume)
      await harness.write(clone.id, 4 * MIB, Buffer.alloc(512, 6))
      await harness.write(volume.id, 8 * MIB, Buffer.alloc(4096, 8))
      const expected = Buffer.concat([Buffer.alloc(512, 6), Buffer.alloc(3584, 5)])
      expect(await harness.read(clone.id, 4 * MIB, 4096)).toEqual(expected)
      expect(await harness.read(clone.id, 8 * MIB, 4096)).toEqual(Buffer.alloc(4096))
      expect(await harness.read(volume.id, 4 * MIB, 4096)).toEqual(Buffer.alloc(4096, 5))
    })

    it('1: takes snapshots of several volumes together, and a repeat keeps their content', async () => {
      const volumes = [await newVolume(), await newVolume(2), await newVolume()]
      const fill = async (value: number) => {
        for (const { id } of volumes) await harness.write(id, 4096, Buffer.alloc(4096, value))
      }
      await fill(1)
      const together = volumes.map(({ id, sizeGib }) => ({ id: randomUUID(), volumeId: id, sizeGib }))
      await harness.driver.createGroupSnapshot(together)
      await fill(2)
      await harness.driver.createGroupSnapshot(together)
      await harness.restart()
      for (const snapshot of together) {
        const copy = { id: randomUUID(), sizeGib: snapshot.sizeGib }
        await harness.driver.createVolumeFromSnapshot(copy, snapshot)
        expect(await harness.read(copy.id, 4096, 4096)).toEqual(Buffer.alloc(4096, 1))
        await harness.driver.deleteSnapshot(snapshot)
      }
      for (const { id } of volumes) expect(await harness.read(id, 4096, 4096)).toEqual(Buffer.alloc(4096, 2))
    })

    it('3: takes none of several snapshots when one of the volumes is not there', async () => {
      const volume = await newVolume()
      const together = [volume.id, randomUUID()].map((volumeId) => ({ id: randomUUID(), volumeId, sizeGib: 1 }))
      expect(await code(harness.driver.createGroupSnapshot(together))).not.toBe('done')
      const copy = { id: randomUUID(), sizeGib: 1 }
      expect(await code(harness.driver.createVolumeFromSnapshot(copy, together[0]!))).toBe('SnapshotNotFound')
      await harness.driver.deleteVolume(volume)
    })

    it('1: takes over what it holds under another name, with its snapshots, once or again', async () => {
      const { driver } = harness
      const volume = await newVolume(2)
      const data = await driver.openVolume(volume)
      await data.write(0, Buffer.alloc(4096, 1))
      await data.close()
      const snapshot = await newSnapshot(volume)
      const listed = await driver.listManageable?.()
      if (listed === undefined || driver.manageVolume === undefined || driver.manageSnapshot === undefined) return
      const { name } = listed.volumes.find(({ volumeId }) => volumeId === volume.id)!
      const frozen = listed.snapshots.find(({ snapshotId }) => snapshotId === snapshot.id)!
      expect(frozen).toMatchObject({ volumeName: name, volumeId: volume.id, sizeGib: 2, reason: null })
      const other = { id: randomUUID(), sizeGib: 2 }
      const again = { id: randomUUID(), volumeId: other.id, sizeGib: 2 }
      for (const _ of ['once', 'again']) {
        expect(await driver.manageVolume(other, name)).toEqual({ sizeGib: 2 })
        await driver.manageSnapshot(again, frozen.name)
      }
      await harness.restart()
      expect(await harness.read(other.id, 0, 4096)).toEqual(Buffer.alloc(4096, 1))
      const names = (await harness.driver.listManageable!()).volumes.map(({ volumeId }) => volumeId)
      expect([names.includes(other.id), names.includes(volume.id)]).toEqual([true, false])
      expect(await code(harness.driver.manageVolume!({ id: randomUUID() }, 'nothing'))).toBe('VolumeNotFound')
      expect(await code(harness.driver.manageSnapshot!({ ...again, id: randomUUID() }, 'nothing'))).toBe(
        'SnapshotNotFound',
      )
      await harness.driver.deleteSnapshot(again)
      await harness.driver.deleteVolume(other)
    })

    it('takes over nothing that somebody has a right to', async () => {
      const volume = await newVolume()
      const { name } = (await harness.driver.listManageable!()).volumes.find(({ volumeId }) => volumeId === volume.id)!
      const one = attachment()
      await harness.driver.createExport(volume, one)
      expect(await code(harness.driver.manageVolume!({ id: randomUUID() }, name))).toBe('InvalidVolume')
      await harness.driver.removeExport(volume, one.id)
    })

    it('1: reverts a volume to a snapshot, once or again, and both go on', async () => {
      const volume = await newVolume()
      await harness.write(volume.id, 0, Buffer.alloc(4096, 1))
      await harness.write(volume.id, 8 * MIB, Buffer.alloc(4096, 2))
      const older = await newSnapshot(volume)
      await harness.write(volume.id, 0, Buffer.alloc(4096, 3))
      const latest = await newSnapshot(volume)
      await harness.write(volume.id, 4096, Buffer.alloc(4096, 4))
      for (const _ of ['once', 'again']) {
        await harness.driver.revertToSnapshot(latest)
        expect(await harness.read(volume.id, 0, 8192)).toEqual(
          Buffer.concat([Buffer.alloc(4096, 3), Buffer.alloc(4096)]),
        )
        expect(await harness.read(volume.id, 8 * MIB, 4096)).toEqual(Buffer.alloc(4096, 2))
        await harness.write(volume.id, 0, Buffer.alloc(4096, 5))
      }
      const copy = { id: randomUUID(), sizeGib: 1 }
      await harness.driver.createVolumeFromSnapshot(copy, latest)
      expect(await harness.read(copy.id, 0, 4096)).toEqual(Buffer.alloc(4096, 3))
      expect(await harness.read(volume.id, 0, 4096)).toEqual(Buffer.alloc(4096, 5))
      await harness.driver.deleteSnapshot(latest)
      await harness.driver.revertToSnapshot(older)
      expect(await harness.read(volume.id, 0, 4096)).toEqual(Buffer.alloc(4096, 1))
      await harness.driver.deleteSnapshot(older)
      await harness.driver.deleteVolume(volume)
      expect(await harness.read(copy.id, 0, 4096)).toEqual(Buffer.alloc(4096, 3))
    })

    it('a reverted volume is the same to those who have a right to reach it', async () => {
      const volume = await newVolume()
      await harness.write(volume.id, 0, Buffer.alloc(4096, 1))
      const snapshot = await newSnapshot(volume)
      await harness.write(volume.id, 0, Buffer.alloc(4096, 2))
      const one = attachment()
      const info = await harness.driver.createExport(volume, one)
      await harness.driver.revertToSnapshot(snapshot)
      const initiator = await harness.connect(info)
      expect(await initiator.read(0, 4096)).toEqual(Buffer.alloc(4096, 1))
      await initiator.write(0, Buffer.alloc(4096, 6))
      expect(await harness.read(volume.id, 0, 4096)).toEqual(Buffer.alloc(4096, 6))
      await initiator.close()
      await harness.driver.removeExport(volume, one.id)
      expect(await refused(info)).toBe(true)
      const absent = { id: randomUUID(), volumeId: volume.id, sizeGib: 1 }
      expect(await code(harness.driver.revertToSnapshot(absent))).toBe('SnapshotNotFound')
    })

    it('answers an export with flat, JSON-safe connection information', async () => {
      const volume = await newVolume()
      const info = await harness.driver.createExport(volume, attachment())
      expect(typeof info.driver_volume_type).toBe('string')
      expect(JSON.parse(JSON.stringify(info))).toEqual(info)
      expect(info).not.toHaveProperty('encrypted') // the service knows
      // Nova's libvirt driver puts them into a document as they are, and fails with numbers.
      for (const key of ['logical_block_size', 'physical_block_size']) expect(info[key] ?? '').toBeTypeOf('string')
    })

    it('lets an initiator in until its right is taken back', async () => {
      const volume = await newVolume()
      const one = attachment()
      const initiator = await harness.connect(await harness.driver.createExport(volume, one))
      await initiator.write(4096, Buffer.alloc(4096, 9))
      expect(await harness.read(volume.id, 4096, 4096)).toEqual(Buffer.alloc(4096, 9))
      await harness.driver.removeExport(volume, one.id)
      await expect(initiator.write(4096, Buffer.alloc(4096, 1))).rejects.toThrow()
      expect(await harness.read(volume.id, 4096, 4096)).toEqual(Buffer.alloc(4096, 9))
      await initiator.close().catch(() => {})
    })

    it('lets several initiators write to one volume, and ends one without the others', async () => {
      const { driver } = harness
      expect(driver.capabilities.multiattach).toBe(true)
      const volume = await newVolume()
      const [one, other] = [attachment(), attachment()]
      const left = await harness.connect(await driver.createExport(volume, one))
      const right = await harness.connect(await driver.createExport(volume, other))
      await left.write(0, Buffer.alloc(4096, 1))
      expect(await right.read(0, 4096)).toEqual(Buffer.alloc(4096, 1))
      await right.write(0, Buffer.alloc(4096, 2))
      expect(await left.read(0, 4096)).toEqual(Buffer.alloc(4096, 2))
      await driver.removeExport(volume, one.id)
      await expect(left.write(0, Buffer.alloc(4096, 1))).rejects.toThrow()
      await right.write(4096, Buffer.alloc(4096, 3))
      const kept = Buffer.concat([Buffer.alloc(4096, 2), Buffer.alloc(4096, 3)])
      expect(await harness.read(volume.id, 0, 8192)).toEqual(kept)
      for (const initiator of [left, right]) await initiator.close().catch(() => {})
      await driver.removeExport(volume, other.id)
    })

    it('replaces the right of an attachment when it is exported again', async () => {
      const volume = await newVolume()
      const one = attachment()
      const first = await harness.driver.createExport(volume, one)
      const second = await harness.driver.createExport(volume, one)
      expect(await refused(first)).toBe(true)
      expect(await refused(second)).toBe(false)
    })

    it('keeps a right over a restart, and rights of other attachments apart', async () => {
      const volume = await newVolume()
      const [one, other] = [attachment(), attachment()]
      const info = await harness.driver.createExport(volume, one)
      const otherInfo = await harness.driver.createExport(volume, other)
      await harness.restart()
      await harness.driver.removeExport(volume, other.id)
      expect(await refused(info)).toBe(false)
      expect(await refused(otherInfo)).toBe(true)
    })

    it('gives rights other limits while they are used, and none to a volume that has no rights', async () => {
      const volume = await newVolume()
      const one = { ...attachment(), limits: { totalIops: { perSecond: 1_000_000 } } }
      const initiator = await harness.connect(await harness.driver.createExport(volume, one))
      for (const limits of [{ readBytes: { perSecond: 1e9, burstPerSecond: 2e9, burstSeconds: 3 } }, null, null]) {
        await harness.driver.limitVolume?.(volume, limits)
        await initiator.write(0, Buffer.alloc(512, 1))
      }
      await initiator.close().catch(() => {})
      await harness.driver.removeExport(volume, one.id)
      await harness.driver.limitVolume?.(volume, { totalIops: { perSecond: 1 } })
    })

    it('refuses writes under a read-only right', async () => {
      const volume = await newVolume()
      const initiator = await harness.connect(await harness.driver.createExport(volume, attachment('ro')))
      expect(await initiator.read(0, 512)).toEqual(Buffer.alloc(512))
      await expect(initiator.write(0, Buffer.alloc(512, 1))).rejects.toThrow()
      expect(await harness.read(volume.id, 0, 512)).toEqual(Buffer.alloc(512))
      await initiator.close().catch(() => {})
    })

    it('remembers which database drives it, also after a crash, until that is replaced', async () => {
      const [first, second] = [randomUUID(), randomUUID()]
      if (harness.driver.drive === undefined) return
      expect(await harness.driver.drive(first, { replace: true })).toBe(first)
      expect(await harness.driver.drive(second, { replace: false })).toBe(first)
      await harness.restart()
      expect(await harness.driver.drive?.(second, { replace: false })).toBe(first)
      expect(await harness.driver.drive?.(second, { replace: true })).toBe(second)
      expect(await harness.driver.drive?.(first, { replace: false })).toBe(second)
    })

    it('says what the backend holds, when it can', async () => {
      const { driver } = harness
      const volume = await newVolume(2)
      const snapshot = await newSnapshot(volume)
      const clone = { id: randomUUID(), sizeGib: 2 }
      await driver.createClonedVolume(clone, volume)
      const right = attachment()
      await driver.createExport(clone, right)
      const found = await driver.discover?.()
      if (found === undefined) return
      expect(found.volumes).toEqual(expect.arrayContaining([volume, clone]))
      expect(found.snapshots).toContainEqual(snapshot)
      expect(found.exports).toContainEqual({ attachmentId: right.id, volumeId: clone.id })
      await driver.deleteSnapshot(snapshot)
      await driver.deleteVolume(volume)
      await driver.removeExport(clone, right.id)
      const left = (await driver.discover?.())!
      expect(left.volumes.filter(({ id }) => id === volume.id)).toEqual([])
      expect(left.snapshots.filter(({ id }) => id === snapshot.id)).toEqual([])
      expect(left.exports.filter(({ attachmentId }) => attachmentId === right.id)).toEqual([])
    })

    it('holds nothing once everything is deleted', async () => {
      const space = await makeHarness()
      try {
        const { driver } = space
        const volume = { id: randomUUID(), sizeGib: 1 }
        const clone = { id: randomUUID(), sizeGib: 1 }
        const snapshot = { id: randomUUID(), volumeId: volume.id, sizeGib: 1 }
        await driver.createVolume(volume)
        await space.write(volume.id, 0, Buffer.alloc(MIB, 1))
        await driver.createSnapshot(snapshot)
        await driver.createVolumeFromSnapshot(clone, snapshot)
        await space.write(clone.id, 0, Buffer.alloc(4096, 2))
        await driver.createExport(clone, attachment())
        expect(await space.used()).toBeGreaterThan(0)
        await driver.deleteSnapshot(snapshot)
        await driver.deleteVolume(volume)
        await driver.deleteVolume(clone)
        expect(await space.used()).toBe(0)
      } finally {
        await space.stop()
      }
    })
  })
}
