import { StoreError } from '../../errors.ts'
import { inodeOid, oidIndex, oidVid } from '../../protocol/oid.ts'
import { attributeOid } from '../attributes.ts'
import type { ClusterState } from '../cluster-state.ts'
import { BLOCK_BYTES, type InheritRun } from '../object-format.ts'
import type { Change, ObjectStore } from '../object-store.ts'
import type { StoredObject } from '../stored-object.ts'
import type { FoundingSurvey, SharedMap, SharedObject } from './founding-survey.ts'

export interface FoundingChangesOptions {
  store: ObjectStore
  state: ClusterState
}

/** Less than the smallest journal takes at once. */
const BLOCKS_AT_ONCE = 32

/**
 * Writes what the survey has found in the form that several nodes share. All VDIs hold what they held, and each step leaves a store of one
 * node as it may be: whatever ends this in the middle, that store goes on, and the next attempt does the rest. Durable when it resolves.
 *
 * @throws StoreError NoSpace, CorruptBlock; and what ObjectStore.commit answers.
 */
export async function prepareForFounding(
  { maps, objects, machineState }: Pick<FoundingSurvey, 'maps' | 'objects' | 'machineState'>,
  { store, state }: FoundingChangesOptions,
): Promise<void> {
  for (const map of maps) await completeMap(store, map)
  for (const object of objects) await unshare(store, state, object)
  for (const oid of machineState) await commit(store, [{ kind: 'create', oid, runs: [] }])
  await new Promise<void>((resolve, reject) => store.sync((error) => (error ? reject(error) : resolve())))
}

async function completeMap(store: ObjectStore, { vid, runs }: SharedMap): Promise<void> {
  const oid = inodeOid(vid)
  if (!store.exists(oid)) return commit(store, [{ kind: 'create', oid, runs: [] }])
  await store.using(oid, async (object) => {
    for (const run of inParts(runs)) await copyRun(store, object, run, [])
  })
}

async function unshare(store: ObjectStore, state: ClusterState, shared: SharedObject): Promise<void> {
  const { oid, copied, unseen, seers } = shared
  const [vid, index] = [oidVid(oid), oidIndex(oid)]
  const countsOwn = (seer: number) => state.vdis.get(seer)?.deleting === true
  await store.using(oid, async (object) => {
    for (const { first, count } of unseen) await commit(store, [{ kind: 'zero', object, first, count }])
    for (const run of inParts(copied)) {
      const deltas = (seer: number) =>
        new Map([[vid, run.count], ...(countsOwn(seer) ? [] : [[run.holderVid, -run.count] as const])])
      const accounts = seers.map((seer): Change => ({ kind: 'account', vid: seer, index, deltas: deltas(seer) }))
      await copyRun(store, object, run, accounts)
    }
  })
}

/** Blocks get the bytes that they show. */
async function copyRun(
  store: ObjectStore,
  object: StoredObject,
  { first, count }: InheritRun,
  accounts: readonly Change[],
): Promise<void> {
  const bytes = Buffer.allocUnsafeSlow(count * BLOCK_BYTES)
  await store.readBlocks(object, first, bytes)
  if (!store.hasRoom(object, bytes.length)) throw new StoreError('NoSpace', 'for what VDIs share')
  await commit(store, [{ kind: 'blocks', object, first, bytes }, ...accounts])
}

function* inParts(runs: readonly InheritRun[]): Generator<InheritRun> {
  for (const { first, count, holderVid } of runs)
    for (let at = 0; at < count; at += BLOCKS_AT_ONCE)
      yield { first: first + at, count: Math.min(BLOCKS_AT_ONCE, count - at), holderVid }
}

/** What only a store of one node keeps, and nothing looks at any more. May be done again. Durable when it resolves. */
export async function forgetAfterFounding({ store, state }: FoundingChangesOptions): Promise<void> {
  for (const { attribute } of state.attributes.all()) {
    const oid = attributeOid(attribute)
    if (store.exists(oid)) await commit(store, [{ kind: 'remove', oid }])
  }
  const none = new Map<number, number>()
  for (const vid of state.vdis.keys()) await commit(store, [{ kind: 'accountSet', vid, account: none }])
  await new Promise<void>((resolve, reject) => store.sync((error) => (error ? reject(error) : resolve())))
}

function commit(store: ObjectStore, changes: readonly Change[]): Promise<void> {
  return new Promise((resolve, reject) =>
    store.commit(changes, { durable: false }, (error) => (error ? reject(error) : resolve())),
  )
}
