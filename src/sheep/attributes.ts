import { StoreError } from '../errors.ts'
import { VDI_ATTR_KEY_SIZE_BYTES, VDI_ATTR_VALUE_SIZE_BYTES } from '../protocol/constants.ts'
import { formatOid } from '../protocol/oid.ts'

/** A named value that a user attached to a VDI. The value is an object of the store; this is what the ordered log knows. */
export interface Attribute {
  key: string
  /** The object that holds the value, as 16 hexadecimal digits. */
  oid: string
  valueBytes: number
  /** Milliseconds since 1970. */
  createdAt: number
  /** On a store of several nodes the value itself, in base64: then there is no object. */
  value?: string
}

/** Every node keeps all attributes in memory, but for their values. */
const ATTRIBUTES_PER_VDI_MAX = 1024

/** The attributes of all VDIs. Those of a working VDI follow it to its next vid. */
export class AttributeTable {
  readonly #byVid = new Map<number, Map<string, Attribute>>()
  readonly #byOid = new Map<bigint, { vid: number; attribute: Attribute }>()
  #valuesBytes = 0

  get size(): number {
    return this.#byOid.size
  }

  /** Bytes of the values that stand here themselves. */
  get valuesBytes(): number {
    return this.#valuesBytes
  }

  of(vid: number): Attribute[] {
    return [...(this.#byVid.get(vid)?.values() ?? [])]
  }

  get(vid: number, key: string): Attribute | undefined {
    return this.#byVid.get(vid)?.get(key)
  }

  byOid(oid: bigint): { vid: number; attribute: Attribute } | undefined {
    return this.#byOid.get(oid)
  }

  all(): IterableIterator<{ vid: number; attribute: Attribute }> {
    return this.#byOid.values()
  }

  /** Throws InvalidParameters for one that must be refused. */
  check(vid: number, { key, valueBytes, oid }: Attribute): void {
    if (key === '' || key.includes('\0') || Buffer.byteLength(key) >= VDI_ATTR_KEY_SIZE_BYTES)
      throw new StoreError('InvalidParameters', 'the name of an attribute has 1 to 255 bytes')
    if (!Number.isInteger(valueBytes) || valueBytes < 0 || valueBytes > VDI_ATTR_VALUE_SIZE_BYTES)
      throw new StoreError(
        'InvalidParameters',
        `the value of an attribute has at most ${VDI_ATTR_VALUE_SIZE_BYTES} bytes`,
      )
    const known = this.#byVid.get(vid)
    const before = known?.get(key)
    if (before ? before.oid !== oid : this.#byOid.has(BigInt(`0x${oid}`)))
      throw new StoreError('InvalidParameters', `the object ${oid} is of another attribute`)
    if (!before && (known?.size ?? 0) >= ATTRIBUTES_PER_VDI_MAX)
      throw new StoreError('InvalidParameters', `a VDI has at most ${ATTRIBUTES_PER_VDI_MAX} attributes`)
  }

  set(vid: number, attribute: Attribute): void {
    let attributes = this.#byVid.get(vid)
    if (!attributes) {
      attributes = new Map()
      this.#byVid.set(vid, attributes)
    }
    this.#valuesBytes += ownBytes(attribute) - ownBytes(attributes.get(attribute.key))
    attributes.set(attribute.key, attribute)
    this.#byOid.set(attributeOid(attribute), { vid, attribute })
  }

  remove(vid: number, key: string): void {
    const attributes = this.#byVid.get(vid)
    const attribute = attributes?.get(key)
    if (!attributes || !attribute) return
    this.#valuesBytes -= ownBytes(attribute)
    attributes.delete(key)
    this.#byOid.delete(attributeOid(attribute))
    if (attributes.size === 0) this.#byVid.delete(vid)
  }

  removeAll(vid: number): void {
    for (const { key } of this.of(vid)) this.remove(vid, key)
  }

  move(fromVid: number, toVid: number): void {
    const attributes = this.of(fromVid)
    this.removeAll(fromVid)
    for (const attribute of attributes) this.set(toVid, attribute)
  }
}

const ownBytes = (attribute: Attribute | undefined): number => attribute?.value?.length ?? 0

export const attributeOid = ({ oid }: Attribute): bigint => BigInt(`0x${oid}`)

export const newAttribute = (oid: bigint, rest: Omit<Attribute, 'oid'>): Attribute => ({ ...rest, oid: formatOid(oid) })
