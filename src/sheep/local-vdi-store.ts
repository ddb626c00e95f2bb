import type { StoreError } from '../errors.ts'
import { inodeOid } from '../protocol/oid.ts'
import type { ClusterDriver } from './cluster/driver.ts'
import { createSingleDriver } from './cluster/single.ts'
import { type FoundingSurvey, surveyForFounding } from './clustered/founding-survey.ts'
import { type Entry, encodeEntry } from './entries.ts'
import { effectsOf } from './entry-effects.ts'
import { snapshotTogether, type VdiOrigin } from './local-group-snapshot.ts'
import { type AuditReport, auditStore } from './maintenance/audit.ts'
import { Reclaimer } from './maintenance/reclaim.ts'
import { recountAccounts } from './maintenance/recount.ts'
import { type Usage, UsageMeter } from './maintenance/usage.ts'
import { BLOCK_BYTES } from './object-format.ts'
import { type ListedObject, listObjects } from './object-listing.ts'
import type { Change } from './object-store.ts'
import { localOwners } from './owner.ts'
import type { OwnerMaker, VdiMap } from './owner-contract.ts'
import { PlainObjects } from './plain-objects.ts'
import type { StoredObject } from './stored-object.ts'
import { VdiAttributes } from './vdi-attributes.ts'
import type { ListRange, StoreSpace, VdiAuditOptions, VdiStore, VdiStoreParts } from './vdi-store.ts'

const VNODES = 128

/** All that VDIs hold is on this node, and an entry and what it does to objects are one transaction. */
export class LocalVdiStore implements VdiStore {
  readonly owners: OwnerMaker
  readonly objects: PlainObjects
  readonly attributes: VdiAttributes
  readonly #parts: VdiStoreParts
  readonly #self: { address: string; zone: number }
  readonly #driver: ClusterDriver
  readonly #reclaimer: Reclaimer
  readonly #usage: UsageMeter
  /** Changes of objects that an entry names; they travel with it in one transaction. */
  readonly #carried = new WeakMap<Entry, readonly Change[]>()

  constructor(parts: VdiStoreParts, self: { address: string; zone: number }) {
    this.#parts = parts
    this.#self = self
    const { store, state, turns, clock, log } = parts
    this.owners = localOwners(store)
    this.objects = new PlainObjects(store)
    const propose = (entry: Entry, carried: readonly Change[] = []) => this.#propose(entry, carried)
    this.attributes = new VdiAttributes({ store, state, clock, turns, propose })
    this.#driver = createSingleDriver((entry) => this.#deliver(entry))
    this.#usage = new UsageMeter({ store, state, clock })
    this.#reclaimer = new Reclaimer({ store, state, clock, log, propose })
  }

  async start(): Promise<void> {
    const { store, state, log } = this.#parts
    if (!store.accountsKnown) await recountAccounts({ store, state, pause: () => this.#pause() }, log)
    await this.#join()
    this.#reclaimer.scheduleAll()
  }

  async stop(): Promise<void> {
    await this.#reclaimer.stop()
    await this.#driver.stop()
  }

  propose(entry: Entry): Promise<void> {
    return this.#propose(entry)
  }

  async make(name: string, fromVid: number | null, entryOf: (vid: number) => Entry): Promise<number> {
    const [vid] = await this.#makeAll([{ name, fromVid }], ([newVid]) => entryOf(newVid!))
    return vid!
  }

  snapshotTogether(of: readonly { name: string; tag: string }[]): Promise<void> {
    return snapshotTogether({ ...this.#parts, makeAll: (origins, entryOf) => this.#makeAll(origins, entryOf) }, of)
  }

  /** By one entry, all or none. The inode objects of those that are inherited from stay loaded meanwhile. */
  async #makeAll(of: readonly VdiOrigin[], entryOf: (vids: readonly number[]) => Entry): Promise<readonly number[]> {
    const { store, state } = this.#parts
    const held: StoredObject[] = []
    try {
      for (const { fromVid } of of) {
        const inherited = fromVid === null ? null : inodeOid(fromVid)
        if (inherited !== null && store.exists(inherited)) held.push(await store.hold(inherited))
      }
      const vids = new Set<number>()
      for (const { name } of of) vids.add(state.freeVid(name, vids))
      const made = [...vids]
      await this.#propose(entryOf(made))
      return made
    } finally {
      for (const inode of held) store.release(inode)
    }
  }

  reclaim(family: number): void {
    this.#reclaimer.schedule(family)
  }

  reclaimed(): Promise<void> {
    return this.#reclaimer.idle()
  }

  flush(): Promise<void> {
    return new Promise((resolve, reject) => this.#parts.store.sync((error) => (error ? reject(error) : resolve())))
  }

  usage(): Promise<Map<number, Usage>> {
    return this.#usage.all()
  }

  get allocatedBytes(): number {
    return this.#parts.store.accounts.physicalBlocks * BLOCK_BYTES
  }

  async space(): Promise<StoreSpace> {
    const { store, state } = this.#parts
    const { totalBytes, freeBytes, failedDisks } = await store.stats()
    return {
      totalBytes,
      freeBytes,
      provisionedBytes: state.vdis.provisionedBytes,
      sizeFactors: [1],
      allocatedBytes: this.allocatedBytes,
      nodes: state.members.map(({ node, address, zone, vnodes }) => {
        return { node, address, zone, vnodes, isAnswering: true, totalBytes, freeBytes, failedDisks }
      }),
    }
  }

  listObjects(_vid: number, range: ListRange, mapOf: () => VdiMap): Promise<ListedObject[]> {
    return listObjects(this.#parts.store, mapOf(), range)
  }

  audit(options: VdiAuditOptions): Promise<AuditReport> {
    const { store, state } = this.#parts
    return auditStore({
      ...options,
      store,
      state,
      propose: (entry) => this.#propose(entry),
      pause: () => this.#pause(),
    })
  }

  surveyForFounding(): Promise<FoundingSurvey> {
    const { store, state } = this.#parts
    return surveyForFounding({ store, state, pause: () => this.#pause() })
  }

  /** Lets everything run that waits to. */
  #pause(): Promise<void> {
    return new Promise((resolve) => this.#parts.clock.afterInput(resolve))
  }

  /** A start is a new incarnation and makes a new epoch. */
  async #join(): Promise<void> {
    const { store, state, clock, random } = this.#parts
    const node = store.storeId.toString('hex')
    const incarnation = random.bytes(8).toString('hex')
    const members = [{ node, incarnation, ...this.#self, vnodes: VNODES }]
    const at = clock.now()
    await this.#propose({ type: 'view', epoch: state.epoch + 1, members, voters: [node], at })
  }

  #propose(entry: Entry, carried: readonly Change[] = []): Promise<void> {
    if (carried.length > 0) this.#carried.set(entry, carried)
    return this.#driver.propose(entry)
  }

  #deliver(entry: Entry): Promise<void> {
    const { store, state, applied } = this.#parts
    state.check(entry)
    const index = state.index + 1
    const changes: Change[] = [
      { kind: 'entry', index, bytes: encodeEntry(entry) },
      ...effectsOf(entry, state, store),
      ...(this.#carried.get(entry) ?? []),
    ]
    state.apply(index, entry)
    if (entry.type === 'view') store.epoch = entry.epoch
    const durable = new Promise<void>((resolve, reject) => {
      store.commit(changes, { durable: true }, (error: StoreError | null) => (error ? reject(error) : resolve()))
    })
    applied(entry)
    return durable
  }
}
