import { StoreError } from '../errors.ts'
import {
  ATTR_FLAG,
  BODY_SIZE_MAX_BYTES,
  FLAG,
  RESULT,
  VDI_ATTR_VALUE_SIZE_BYTES,
  VDI_NAME_SIZE_BYTES,
  VDI_TAG_SIZE_BYTES,
} from '../protocol/constants.ts'
import type { SheepRequest, SheepResponse } from '../protocol/message.ts'
import { attrOid } from '../protocol/oid.ts'
import { OP } from '../protocol/opcodes.ts'
import { vdiAttr } from '../protocol/structs.ts'
import { errorOf } from '../results.ts'
import type { Device } from './device.ts'
import type { ExportLimits } from './export-limits.ts'
import { SessionDevice } from './session-device.ts'
import type { Transport } from './transport.ts'

/** An export right as the store keeps it. The name is a secret of its holder; the store knows the hash. */
export interface ExportRecord {
  attachmentId: string
  /** SHA-256 of the export name, hexadecimal. */
  nameHash: string
  vid: number
  readOnly: boolean
  /** None: it may go as fast as it can. */
  limits?: ExportLimits
}

/** A VDI as LIST_VDIS tells. */
export interface VdiInfo {
  vid: number
  name: string
  tag: string
  snapId: number
  parentVid: number
  sizeBytes: number
  /** Milliseconds since 1970. */
  createdAt: number
  /** 0 for a working VDI. */
  snapshotAt: number
  copies: number
  /** So many at least have what is acknowledged; two, or as many as there are, where it does not say. */
  copiesMin?: number
}

/** A snapshot of a name, by its tag or by its number. */
export interface SnapshotName {
  tag?: string
  snapId?: number
}

/** Space of the store as STAT_STORE tells, in bytes of VDIs that have as many copies as the store makes. */
export interface SpaceInfo {
  totalBytes: number
  freeBytes: number
  /** What its working VDIs promise. */
  provisionedBytes: number
  /** In how many such bytes one counts of a VDI with 1, 2, … copies; no VDI may have more copies than there are entries. */
  sizeFactors: number[]
  /** What a VDI gets that is made without a number. */
  copies: number
  copiesMin: number
}

/** An attribute as LIST_ATTRIBUTES tells. */
export interface AttributeInfo {
  key: string
  valueBytes: number
  /** Milliseconds since 1970. */
  createdAt: number
}

/** A lock that QEMU (alone) or tgt (shared) holds on a name. */
export interface LockInfo {
  name: string
  shared: boolean
  /** Host of each holder. */
  hosts: string[]
}

/**
 * The VDI client: what can be done with VDIs, through any transport. Methods reject with a StoreError; Disconnected leaves
 * open whether the operation took effect.
 */
export class VdiClient {
  readonly #transport: Transport

  constructor(transport: Transport) {
    this.#transport = transport
  }

  /** The working VDI of a name, or with a tag that snapshot. Rejects with NoVdi or NoTag. */
  async lookup(name: string, tag = ''): Promise<number> {
    const { vdiId } = await this.#call({ opcode: OP.GET_VDI_INFO, flags: FLAG.WRITE, body: nameAndTag(name, tag) })
    return vdiId ?? 0
  }

  /**
   * A thin VDI; with `baseVid` a clone of that snapshot, of at least its size; with as many copies as the store makes, or `copies`, of
   * which `copiesMin` at least have what is acknowledged. Rejects with VdiExists, NoBaseVdi, FullVdi, or Unsupported for several copies
   * on a store with one node.
   */
  async create(
    name: string,
    sizeBytes: number,
    baseVid = 0,
    { copies = 0, copiesMin }: { copies?: number | undefined; copiesMin?: number | undefined } = {},
  ): Promise<number> {
    const field = padded(name, VDI_NAME_SIZE_BYTES)
    const body = copiesMin === undefined ? field : Buffer.concat([field, Buffer.from(JSON.stringify({ copiesMin }))])
    const request = { opcode: OP.NEW_VDI, flags: FLAG.WRITE, body }
    const { vdiId } = await this.#call({ ...request, vdiSize: sizeBytes, baseVdiId: baseVid, copies })
    return vdiId ?? 0
  }

  /** Freezes what the working VDI holds under `tag`; returns the vid under which it goes on. */
  async snapshot(vid: number, tag: string): Promise<number> {
    const body = padded(tag, VDI_TAG_SIZE_BYTES)
    const { vdiId } = await this.#call({ opcode: OP.SNAPSHOT_VDI, flags: FLAG.WRITE, vid, body })
    return vdiId ?? 0
  }

  /**
   * Freezes what working VDIs hold at one moment, each under its tag: all of them or, when this rejects, none. Of two writes of which
   * one was answered before the other was sent, no snapshot has the later where one lacks the earlier. Rejects with NoVdi, VdiExists
   * when one of the tags is taken, Busy when requests that were under way would hold up all others for too long.
   */
  async snapshotTogether(snapshots: readonly { name: string; tag: string }[]): Promise<void> {
    await this.#call({
      opcode: OP.SNAPSHOT_VDIS,
      flags: FLAG.WRITE,
      body: Buffer.from(JSON.stringify(snapshots)),
    })
  }

  /** Gives a working VDI and its snapshots another name. Rejects with NoVdi, VdiExists, or VdiLocked while QEMU or tgt have it locked. */
  async rename(name: string, to: string): Promise<void> {
    await this.#rename(name, '', to)
  }

  /** Gives a snapshot another tag. Rejects with NoTag or VdiExists. */
  async retag(name: string, tag: string, to: string): Promise<void> {
    await this.#rename(name, tag, to)
  }

  async #rename(name: string, tag: string, to: string): Promise<void> {
    const body = Buffer.concat([nameAndTag(name, tag), padded(to, VDI_NAME_SIZE_BYTES)])
    await this.#call({ opcode: OP.RENAME_VDI, flags: FLAG.WRITE, body })
  }

  /** The working VDI, or with a tag or a number that snapshot. Rejects with VdiInUse while it is exported or open. */
  async remove(name: string, tag = '', snapId = 0): Promise<void> {
    await this.#call({ opcode: OP.DEL_VDI, flags: FLAG.WRITE, snapId, body: nameAndTag(name, tag) })
  }

  /**
   * Gives a working VDI and its snapshots another number of copies, while it is used; they are made, or go, in the background.
   * `copiesMin` of them at least have what is acknowledged. Rejects with Unsupported on a store with one node.
   */
  async alter(vid: number, wanted: { copies: number; copiesMin?: number }): Promise<void> {
    await this.#call({ opcode: OP.ALTER_VDI, flags: FLAG.WRITE, vid, body: Buffer.from(JSON.stringify(wanted)) })
  }

  async resize(vid: number, sizeBytes: number): Promise<void> {
    await this.#call({ opcode: OP.RESIZE_VDI, vid, vdiSize: sizeBytes })
  }

  /**
   * Makes the working VDI hold again what a snapshot of it holds; returns the vid under which it goes on. Its size stays, and
   * sessions and export rights follow. Rejects with NoTag, or VdiLocked while QEMU or tgt have it locked.
   */
  async rollback(name: string, snapshot: SnapshotName): Promise<number> {
    const body = nameAndTag(name, snapshot.tag ?? '')
    const request = { opcode: OP.ROLLBACK_VDI, flags: FLAG.WRITE, snapId: snapshot.snapId ?? 0, body }
    const { vdiId } = await this.#call(request)
    return vdiId ?? 0
  }

  /**
   * Sets an attribute of the working VDI, or of a snapshot: at most 64 KiB under a name of at most 255 bytes. Rejects with
   * VdiExists when `exclusive` and it is set already.
   */
  async setAttribute(
    name: string,
    key: string,
    value: Buffer,
    { exclusive = false, snapshot = {} }: { exclusive?: boolean; snapshot?: SnapshotName } = {},
  ): Promise<void> {
    if (value.length > VDI_ATTR_VALUE_SIZE_BYTES)
      throw new StoreError('InvalidParameters', `an attribute has at most ${VDI_ATTR_VALUE_SIZE_BYTES} bytes`)
    const flags = ATTR_FLAG.CREATE | (exclusive ? ATTR_FLAG.EXCLUSIVE : 0)
    await this.#attribute(name, snapshot, key, flags, value)
  }

  /** Rejects with NoObject when there is no such attribute. */
  async getAttribute(name: string, key: string, snapshot: SnapshotName = {}): Promise<Buffer> {
    const { vdiId = 0, attrId = 0 } = await this.#attribute(name, snapshot, key, 0)
    const dataLength = vdiAttr.sizeBytes
    const { body } = await this.#call({ opcode: OP.READ_OBJ, oid: attrOid(vdiId, attrId), dataLength })
    const { value, valueLength } = vdiAttr.decode(body ?? Buffer.alloc(vdiAttr.sizeBytes))
    return value.subarray(0, valueLength)
  }

  /** Rejects with NoObject when there is no such attribute. */
  async removeAttribute(name: string, key: string, snapshot: SnapshotName = {}): Promise<void> {
    await this.#attribute(name, snapshot, key, ATTR_FLAG.DELETE)
  }

  async listAttributes(name: string, snapshot: SnapshotName = {}): Promise<AttributeInfo[]> {
    const body = nameAndTag(name, snapshot.tag ?? '')
    const request = { opcode: OP.LIST_ATTRIBUTES, flags: FLAG.WRITE | FLAG.PIGGYBACK, body }
    return this.#json<AttributeInfo[]>({ ...request, vid: snapshot.snapId ?? 0 })
  }

  #attribute(
    name: string,
    { tag = '', snapId = 0 }: SnapshotName,
    key: string,
    flags: number,
    value: Buffer = Buffer.alloc(0),
  ): Promise<SheepResponse> {
    const body = vdiAttr.encode({ name, tag, snapId, key, value, valueLength: value.length })
    return this.#call({ opcode: OP.GET_VDI_ATTR, flags: FLAG.WRITE | flags, body })
  }

  /** The locks that QEMU and tgt hold. */
  async listLocks(): Promise<LockInfo[]> {
    return this.#json<LockInfo[]>({ opcode: OP.LIST_LOCKS })
  }

  /**
   * Ends the lock on a name, if there is one: what its holder has under way is over when it resolves, and what its connections
   * send from then on is refused.
   */
  async unlock(name: string): Promise<void> {
    await this.#call({ opcode: OP.UNLOCK_VDI, flags: FLAG.WRITE, body: Buffer.from(name) })
  }

  /** The working VDI of a name and its snapshots; empty when there is none. */
  async listOf(name: string): Promise<VdiInfo[]> {
    const flags = FLAG.WRITE | FLAG.PIGGYBACK
    return this.#json<VdiInfo[]>({ opcode: OP.LIST_VDIS, flags, body: Buffer.from(name) })
  }

  /** All VDIs and snapshots. */
  async list(): Promise<VdiInfo[]> {
    const all: VdiInfo[] = []
    for (;;) {
      const some = await this.#json<VdiInfo[]>({ opcode: OP.LIST_VDIS, vid: all.at(-1)?.vid ?? 0 })
      if (some.length === 0) return all
      all.push(...some)
    }
  }

  async space(): Promise<SpaceInfo> {
    return this.#json<SpaceInfo>({ opcode: OP.STAT_STORE })
  }

  /** Lets a database of the service drive the store, unless another does; answers the id of the one that does. */
  async drive(database: string, { replace }: { replace: boolean }): Promise<string> {
    const body = Buffer.from(JSON.stringify({ database, replace }))
    return this.#json<string>({ opcode: OP.DRIVE_STORE, flags: FLAG.WRITE | FLAG.PIGGYBACK, body })
  }

  /** Grants a right, or replaces the one that the attachment had; sessions under the old one are over when it resolves. */
  async putExport(record: ExportRecord): Promise<void> {
    await this.#call({ opcode: OP.PUT_EXPORT, flags: FLAG.WRITE, body: Buffer.from(JSON.stringify(record)) })
  }

  /** Gives a right other limits, or none; sessions under it go on. Rejects with NoExport. */
  async limitExport(attachmentId: string, limits: ExportLimits | null): Promise<void> {
    const body = Buffer.from(JSON.stringify({ attachmentId, limits }))
    await this.#call({ opcode: OP.LIMIT_EXPORT, flags: FLAG.WRITE, body })
  }

  /** When it resolves nothing sent under the right changes a byte any more. */
  async removeExport(attachmentId: string): Promise<void> {
    await this.#call({ opcode: OP.REMOVE_EXPORT, flags: FLAG.WRITE, body: Buffer.from(attachmentId) })
  }

  /** The rights to the working VDI of a name. Rejects with NoVdi. */
  async exportsOf(name: string): Promise<ExportRecord[]> {
    const flags = FLAG.WRITE | FLAG.PIGGYBACK
    return this.#json<ExportRecord[]>({ opcode: OP.LIST_EXPORTS, flags, body: Buffer.from(name) })
  }

  /** The right of a name's hash; undefined when there is none. */
  async findExport(nameHash: string): Promise<ExportRecord | undefined> {
    const flags = FLAG.WRITE | FLAG.PIGGYBACK
    const response = await this.#submit({ opcode: OP.GET_EXPORT, flags, body: Buffer.from(nameHash) })
    if (response.result === RESULT.NOT_FOUND) return undefined
    throwFor(response)
    return JSON.parse(response.body?.toString() ?? '') as ExportRecord
  }

  /** Opens a session under an export right. Rejects with NoExport. */
  async openExport(nameHash: string, readOnly: boolean): Promise<Device> {
    return this.#open({ opcode: OP.OPEN_VDI, flags: FLAG.WRITE, body: Buffer.from(nameHash) }, readOnly)
  }

  /** Opens without a right. Rejects with VdiLocked when it would write to a VDI that is under an attachment. */
  async open(vid: number, { readOnly }: { readOnly: boolean }): Promise<Device> {
    return this.#open({ opcode: OP.OPEN_VDI, flags: readOnly ? FLAG.READ_ONLY : 0, vid }, readOnly)
  }

  close(): void {
    this.#transport.close()
  }

  async #open(request: SheepRequest, readOnly: boolean): Promise<Device> {
    const { session, vdiSize } = await this.#call(request)
    return new SessionDevice(this.#transport, session ?? 0, vdiSize ?? 0, readOnly)
  }

  async #call(request: SheepRequest): Promise<SheepResponse> {
    const response = await this.#submit(request)
    throwFor(response)
    return response
  }

  async #json<T>(request: SheepRequest): Promise<T> {
    const { body } = await this.#call({ ...request, dataLength: BODY_SIZE_MAX_BYTES })
    return JSON.parse(body?.toString() ?? 'null') as T
  }

  #submit(request: SheepRequest): Promise<SheepResponse> {
    return new Promise((resolve) => this.#transport.submit(request, resolve))
  }
}

function throwFor(response: SheepResponse): void {
  const error = errorOf(response.result)
  if (error) throw error
}

/** A name in its field; one that does not fit is refused here, because the field would cut it. */
function padded(text: string, sizeBytes: number): Buffer {
  const bytes = Buffer.from(text)
  if (bytes.length >= sizeBytes)
    throw new StoreError('InvalidParameters', `"${text}" is longer than ${sizeBytes - 1} bytes`)
  return Buffer.concat([bytes], sizeBytes)
}

function nameAndTag(name: string, tag: string): Buffer {
  return Buffer.concat([padded(name, VDI_NAME_SIZE_BYTES), padded(tag, VDI_TAG_SIZE_BYTES)])
}
