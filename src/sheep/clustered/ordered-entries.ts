import type { StoreError } from '../../errors.ts'
import type { ClusterState } from '../cluster-state.ts'
import { decodeEntry, type Entry, encodeEntry } from '../entries.ts'
import type { ObjectStore } from '../object-store.ts'
import type { Electorate, Item } from '../order/item.ts'
import type { OrderedState } from '../order/ordered-log.ts'

export interface OrderedEntriesOptions {
  state: ClusterState
  store: ObjectStore
  /** Another state is about to take the place of this one. */
  replacing(): void
  /** An entry has taken effect, in the turn in which it does. */
  applied(index: number, entry: Entry): void
  /** The entries could not be written: the node must leave. */
  failed(error: StoreError): void
}

/**
 * What the items of the cluster's ordered log mean: entries of the store's state. Each is applied and written to this node's disk, in
 * its turn but not durably: after a loss of power the log tells the last ones once more.
 */
export class OrderedEntries implements OrderedState {
  readonly #options: OrderedEntriesOptions
  #index: number

  /** `options.state` is what the disk has. */
  constructor(options: OrderedEntriesOptions) {
    this.#options = options
    this.#index = options.state.index
  }

  /** At the start. */
  get durableIndex(): number {
    return this.#index
  }

  get electorate(): Electorate | null {
    const { index, view } = this.#options.state.views.at(-1)!
    return view.epoch === 0 ? null : { index, voters: view.voters }
  }

  apply({ index, payload }: Item): void {
    const { state } = this.#options
    const entry = decodeEntry(Buffer.from(payload))
    state.check(entry)
    this.#take(index, entry)
  }

  /** What `install` takes, of the state as it is after entry `index`. */
  encodeState(index: number): Buffer {
    return Buffer.from(JSON.stringify({ index, entries: this.#options.state.snapshotEntries() }))
  }

  async install(bytes: Buffer): Promise<{ index: number; electorate: Electorate }> {
    const { index, entries } = JSON.parse(bytes.toString()) as { index: number; entries: Entry[] }
    this.#options.replacing()
    this.#take(index, { type: 'state', entries })
    await this.sync()
    const { electorate } = this
    if (!electorate) throw new Error('a state without a view was sent')
    return { index, electorate }
  }

  /** Resolves when everything that has been applied is on the disk. */
  sync(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#options.store.sync((error) => (error ? reject(error) : resolve()))
    })
  }

  #take(index: number, entry: Entry): void {
    const { state, store, applied, failed } = this.#options
    state.apply(index, entry)
    store.epoch = state.epoch
    store.commit([{ kind: 'entry', index, bytes: encodeEntry(entry) }], { durable: false }, (error) => {
      if (error) failed(error)
    })
    applied(index, entry)
  }
}
