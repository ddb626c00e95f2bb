import { StoreError } from '../errors.ts'
import type { Clock } from '../runtime/clock.ts'
import { type Attribute, attributeOid, newAttribute } from './attributes.ts'
import { roundUp } from './block-range.ts'
import type { ClusterState } from './cluster-state.ts'
import type { Entry, Vdi } from './entries.ts'
import { OBJECT_TAIL_BYTES } from './object-format.ts'
import type { Change, ObjectStore } from './object-store.ts'
import type { Turns } from './turns.ts'
import type { AttributeValues, VdiName } from './vdi-store.ts'

export interface VdiAttributesOptions {
  store: ObjectStore
  state: ClusterState
  clock: Clock
  turns: Turns<number>
  /** Proposes an entry, and changes of objects in one transaction with it. */
  propose(entry: Entry, carried?: readonly Change[]): Promise<void>
}

/** The values are objects of this node. */
export class VdiAttributes implements AttributeValues {
  readonly #options: VdiAttributesOptions

  constructor(options: VdiAttributesOptions) {
    this.#options = options
  }

  set(which: VdiName, key: string, value: Buffer, exclusive: boolean): Promise<Attribute> {
    const { store, state, clock, propose } = this.#options
    return this.#inTurn(which, async ({ vid, name, tag, snapId, snapshotAt }) => {
      const known = state.attributes.get(vid, key)
      if (known && exclusive) throw new StoreError('VdiExists', key)
      const object = known ? await store.hold(attributeOid(known)) : null
      try {
        const hashed = snapshotAt > 0 ? { tag, snapId } : { tag: '', snapId: 0 }
        const oid = known ? attributeOid(known) : state.freeAttributeOid(name, hashed, key)
        const createdAt = known?.createdAt ?? clock.now()
        const attribute = newAttribute(oid, { key, valueBytes: value.length, createdAt })
        state.attributes.check(vid, attribute)
        if (!store.hasRoomForNew(0, OBJECT_TAIL_BYTES + roundUp(value.length))) throw new StoreError('NoSpace')
        const bytes = Buffer.concat([value], roundUp(value.length))
        const carried: Change[] = known ? [] : [{ kind: 'create', oid, runs: [] }]
        if (bytes.length > 0) carried.push({ kind: 'blocks', object: object ?? oid, first: 0, bytes })
        await propose({ type: 'attribute', vid, attribute }, carried)
        return attribute
      } finally {
        if (object) store.release(object)
      }
    })
  }

  get(which: VdiName, key: string): Attribute {
    const { state } = this.#options
    const attribute = state.attributes.get(state.find(which.name, which).vid, key)
    if (!attribute) throw new StoreError('NoObject', `${which.name} has no attribute ${key}`)
    return attribute
  }

  remove(which: VdiName, key: string): Promise<Attribute> {
    return this.#inTurn(which, async ({ vid }) => {
      const attribute = this.get(which, key)
      await this.#options.propose({ type: 'unattribute', vid, key })
      return attribute
    })
  }

  async read(attribute: Attribute): Promise<Buffer> {
    const { store } = this.#options
    const bytes = Buffer.alloc(roundUp(attribute.valueBytes))
    await store.using(attributeOid(attribute), (object) => store.readBlocks(object, 0, bytes))
    return bytes.subarray(0, attribute.valueBytes)
  }

  async #inTurn(which: VdiName, work: (vdi: Vdi) => Promise<Attribute>): Promise<Attribute> {
    const { state, turns } = this.#options
    const { family } = state.find(which.name, which)
    return turns.take(family, () => work(state.find(which.name, which)))
  }
}
