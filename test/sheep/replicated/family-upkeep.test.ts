import { expect, it } from 'vitest'
import { StoreError } from '../../../src/errors.ts'
import { dataOid, oidKind, vmstateOid } from '../../../src/protocol/oid.ts'
import { ClusterState } from '../../../src/sheep/cluster-state.ts'
import type { Entry } from '../../../src/sheep/entries.ts'
import { BLOCK_BYTES, OBJECT_BYTES } from '../../../src/sheep/object-format.ts'
import { ReplicatedFamily } from '../../../src/sheep/replicated/replicated-family.ts'
import type { ReplicatedObjects } from '../../../src/sheep/replicated/replicated-objects.ts'
import { SimClock } from '../../sim/clock.ts'
import { SeededRandom } from '../../sim/random.ts'
import { SimObjects } from './sim-objects.ts'

const VID = 7

/** A family of one VDI of two objects, with three blocks in the second. */
async function open() {
  const clock = new SimClock(new SeededRandom(1))
  const objects = new SimObjects(new SeededRandom(2))
  const port = objects.port(1, clock.node())
  /** What is done, and nobody can say so. */
  const unsure = { is: false }
  const asked: ReplicatedObjects = Object.create(port, {
    writeNow: { value: () => false },
    write: {
      value: async (...args: Parameters<ReplicatedObjects['write']>) => {
        await port.write(...args)
        if (unsure.is) throw new StoreError('Unsure')
      },
    },
  })
  const state = new ClusterState()
  const propose = async (entry: Entry) => {
    state.apply(state.index + 1, entry)
    family.applied(entry)
  }
  const family = new ReplicatedFamily({ family: VID, objects: asked, state, propose })
  const run = <T>(work: Promise<T>): Promise<T> => clock.run(work)
  const vdi = {
    vid: VID,
    name: 'a',
    tag: '',
    snapId: 1,
    parentVid: 0,
    family: VID,
    sizeBytes: 2 * OBJECT_BYTES,
    copies: 1,
  }
  await run(family.make(VID, null, { type: 'vdi', vdi: { ...vdi, createdAt: 1, snapshotAt: 0, deleting: false } }))
  await run(family.recover())
  const owner = family.ownerOf(VID, vdi.sizeBytes)
  const write = (offset: number, blocks: number) =>
    run(
      new Promise<void>((resolve, reject) =>
        owner.write(offset, Buffer.alloc(blocks * BLOCK_BYTES, 1), true, (error) =>
          error ? reject(error) : resolve(),
        ),
      ),
    )
  await write(OBJECT_BYTES, 3)
  const machineState = async () => (await run(port.objectsOf(VID))).oids.filter((oid) => oidKind(oid) === 'vmstate')
  return { family, port, propose, run, machineState, write, unsure }
}

it('finds the account wrong when there is something else than was counted, and sets it right', async () => {
  const { family, port, run } = await open()
  expect(await run(family.auditAccounts(false))).toEqual({ compared: 1, wrong: [] })
  // Behind the back of the owner.
  const zeros = [{ first: 1, count: 2 }]
  await run(port.write(dataOid(VID, 1), { blocks: [], zeros }, { exists: true, durable: true }))
  const wrong = [expect.objectContaining({ said: 3, counted: 1 })]
  expect(await run(family.auditAccounts(false))).toEqual({ compared: 1, wrong })
  expect(await run(family.auditAccounts(true))).toEqual({ compared: 1, wrong })
  expect(await run(family.auditAccounts(false))).toEqual({ compared: 1, wrong: [] })
  expect(family.usage().get(VID)).toMatchObject({ allocatedBytes: BLOCK_BYTES, isExact: true })
})

it('does not call exact what it has counted while nobody knows what became of a write, until it has looked', async () => {
  const { family, run, write, unsure } = await open()
  unsure.is = true
  await expect(write(OBJECT_BYTES + 3 * BLOCK_BYTES, 2)).rejects.toMatchObject({ code: 'Unsure' })
  unsure.is = false
  expect(family.usage().get(VID)).toMatchObject({ allocatedBytes: 3 * BLOCK_BYTES, isExact: false })
  await run(family.settle())
  expect(family.usage().get(VID)).toMatchObject({ allocatedBytes: 5 * BLOCK_BYTES, isExact: true })
})

it('removes machine state that the log never came to speak of, but none that is being made', async () => {
  const { family, propose, run, machineState } = await open()
  const grow = (count: number, entry: () => Promise<void>) => run(family.machineState.grow(VID, count, entry))
  await grow(1, async () => {
    await family.removeAllGarbage()
    await propose({ type: 'vmstate', vid: VID, objects: 1 })
  })
  expect(await machineState()).toEqual([vmstateOid(VID, 0)])
  await expect(grow(3, () => Promise.reject(new StoreError('Unsure')))).rejects.toThrow('could not be told')
  expect(await machineState()).toHaveLength(3)
  await run(family.recover())
  expect(await machineState()).toEqual([vmstateOid(VID, 0)])
})
