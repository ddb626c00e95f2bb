import { StoreError } from '../errors.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Entry } from './entries.ts'
import type { VdiStoreParts } from './vdi-store.ts'

/** A VDI that is to be made: its name, and what it holds at first. */
export interface VdiOrigin {
  name: string
  fromVid: number | null
}

interface Ports extends Pick<VdiStoreParts, 'state' | 'turns' | 'owners' | 'clock'> {
  makeAll(of: readonly VdiOrigin[], entryOf: (vids: readonly number[]) => Entry): Promise<unknown>
}

/** How long what is under way may keep the clients of several VDIs waiting: less than any of them takes for an outage. */
const STALL_MAX_MS = 10_000

/** Snapshots of several VDIs at one moment, where one node has all of them: their gates close in the same turn. */
export async function snapshotTogether(
  { state, turns, owners, clock, makeAll }: Ports,
  of: readonly { name: string; tag: string }[],
): Promise<void> {
  const families = new Set(of.map(({ name }) => state.find(name).family))
  await turns.takeAll(
    [...families].sort((a, b) => a - b),
    async () => {
      const vdis = of.map(({ name }) => state.find(name))
      for (const { name, family } of vdis) if (!families.has(family)) throw new StoreError('NoVdi', name) // another by now
      const frozen = vdis.map(({ vid }) => owners.of(vid))
      try {
        await withinStall(clock, Promise.all(frozen.map((owner) => owner.freeze())))
        const at = clock.now()
        const origins = vdis.map(({ name, vid }) => ({ name, fromVid: vid }))
        await makeAll(origins, (newVids) => ({
          type: 'snapshots',
          at,
          of: vdis.map(({ vid }, index) => ({ vid, newVid: newVids[index]!, tag: of[index]!.tag })),
        }))
      } finally {
        for (const owner of frozen) owner.thaw()
        for (const owner of frozen) owners.forget(owner.vid)
      }
    },
  )
}

/** Throws Busy when the work takes longer than clients of several VDIs may be kept waiting. */
async function withinStall(clock: Clock, work: Promise<unknown>): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const timer = clock.timer(STALL_MAX_MS, () => reject(new StoreError('Busy')))
    work.then(() => resolve(), reject).finally(() => timer.cancel())
  })
}
