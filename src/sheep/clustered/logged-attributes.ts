import { StoreError } from '../../errors.ts'
import type { Clock } from '../../runtime/clock.ts'
import { type Attribute, newAttribute } from '../attributes.ts'
import type { ClusterState } from '../cluster-state.ts'
import type { Entry, Vdi } from '../entries.ts'
import type { Turns } from '../turns.ts'
import type { AttributeValues, VdiName } from '../vdi-store.ts'

export interface LoggedAttributesOptions {
  state: ClusterState
  clock: Clock
  turns: Turns<number>
  propose(entry: Entry): Promise<void>
}

/** All nodes keep all values in memory: so much at most. */
export const VALUES_BYTES_MAX = 16 << 20

/** The values stand in the ordered log, beside their names: they are few and small, and belong to no VDI's objects for good. */
export class LoggedAttributes implements AttributeValues {
  readonly #options: LoggedAttributesOptions

  constructor(options: LoggedAttributesOptions) {
    this.#options = options
  }

  set(which: VdiName, key: string, value: Buffer, exclusive: boolean): Promise<Attribute> {
    const { state, clock, propose } = this.#options
    return this.#inTurn(which, async ({ vid, name, tag, snapId, snapshotAt }) => {
      const known = state.attributes.get(vid, key)
      if (known && exclusive) throw new StoreError('VdiExists', key)
      if (state.attributes.valuesBytes + value.length > VALUES_BYTES_MAX)
        throw new StoreError('NoSpace', 'for attributes of VDIs')
      const hashed = snapshotAt > 0 ? { tag, snapId } : { tag: '', snapId: 0 }
      const oid = known ? BigInt(`0x${known.oid}`) : state.freeAttributeOid(name, hashed, key)
      const createdAt = known?.createdAt ?? clock.now()
      const attribute = {
        ...newAttribute(oid, { key, valueBytes: value.length, createdAt }),
        value: value.toString('base64'),
      }
      await propose({ type: 'attribute', vid, attribute })
      return attribute
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

  async read({ value = '' }: Attribute): Promise<Buffer> {
    return Buffer.from(value, 'base64')
  }

  async #inTurn(which: VdiName, work: (vdi: Vdi) => Promise<Attribute>): Promise<Attribute> {
    const { state, turns } = this.#options
    const { family } = state.find(which.name, which)
    return turns.take(family, () => work(state.find(which.name, which)))
  }
}
