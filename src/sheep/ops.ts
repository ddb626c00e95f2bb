import { StoreError } from '../errors.ts'
import {
  BLOCK_SIZE_SHIFT_DEFAULT,
  FLAG,
  RESULT,
  VDI_BITMAP_SIZE_BYTES,
  VDI_NAME_SIZE_BYTES,
} from '../protocol/constants.ts'
import type { SheepRequest } from '../protocol/message.ts'
import { oidKind } from '../protocol/oid.ts'
import { OP } from '../protocol/opcodes.ts'
import { decodeText } from '../protocol/struct.ts'
import { encodeExtents } from '../protocol/structs.ts'
import { resultOf } from '../results.ts'
import { attributeObject, attributeRequest } from './attribute-requests.ts'
import type { ExportRight, Vdi } from './cluster-state.ts'
import type { StoreDone } from './object-store.ts'
import type { Reply } from './server.ts'
import type { Session } from './session.ts'
import type { Sheep } from './sheep.ts'

/**
 * The operation table: what each opcode does. Gateway operations move bytes and answer through a callback, because they
 * are the hot path, and all act on a session of their holder; the others answer with a promise. Upstream's kinds: G gateway, C cluster-wide, L local.
 */
type Operation =
  | {
      kind: 'gateway'
      run: (session: Session, request: SheepRequest, reply: (response: Reply) => void) => void
    }
  | { kind: 'cluster' | 'local'; run: (sheep: Sheep, request: SheepRequest, holder: Holder) => Promise<Reply> | Reply }

/** Who sent a request: a connection, whose sessions end with it, or null for a caller in this process. */
export type Holder = object | null

const OPERATIONS: Readonly<Record<number, Operation>> = {
  [OP.READ_VDI]: {
    kind: 'gateway',
    run: (session, request, reply) => {
      const target = request.target ?? answerBuffer(request)
      session.read(request.offset ?? 0, target, (error) => {
        reply(error ? { result: resultOf(error) } : { result: RESULT.SUCCESS, body: target })
      })
    },
  },
  [OP.WRITE_VDI]: {
    kind: 'gateway',
    run: (session, request, reply) => {
      const durable = ((request.flags ?? 0) & FLAG.FUA) !== 0
      session.write(request.offset ?? 0, body(request), durable, answer(reply))
    },
  },
  [OP.DISCARD_VDI]: { kind: 'gateway', run: discard },
  [OP.ZERO_VDI]: { kind: 'gateway', run: discard },
  [OP.FLUSH_VDI_SESSION]: {
    kind: 'gateway',
    run: (session, _request, reply) => session.flush(answer(reply)),
  },
  [OP.EXTENTS_VDI]: {
    kind: 'local',
    run: async (sheep, request, holder) => {
      const session = sheep.sessions.get(request.session ?? 0, holder)
      const extents = await session.extents(request.offset ?? 0, request.length ?? 0)
      return { result: RESULT.SUCCESS, body: encodeExtents(extents, request.dataLength ?? 0) }
    },
  },
  [OP.OPEN_VDI]: {
    kind: 'local',
    run: (sheep, request, holder) => {
      const readOnly = ((request.flags ?? 0) & FLAG.READ_ONLY) !== 0
      const session = request.body?.length
        ? sheep.sessions.openExport(request.body.toString(), holder)
        : sheep.sessions.openAnonymous(request.vid ?? 0, readOnly, holder)
      return { result: RESULT.SUCCESS, session: session.id, vdiSize: session.sizeBytes }
    },
  },
  [OP.STAT_VDI_SESSION]: {
    kind: 'gateway',
    run: (session, _request, reply) => reply({ result: RESULT.SUCCESS, vdiSize: session.sizeBytes }),
  },
  [OP.CLOSE_VDI]: {
    kind: 'local',
    run: async (sheep, request, holder) => {
      await sheep.sessions.close(sheep.sessions.get(request.session ?? 0, holder).id)
      return { result: RESULT.SUCCESS }
    },
  },

  [OP.NEW_VDI]: {
    kind: 'cluster',
    run: async (sheep, request) => {
      const name = cString(body(request), 0, VDI_NAME_SIZE_BYTES)
      const baseVid = request.baseVdiId ?? 0
      if (request.snapId) {
        const base = sheep.state.get(baseVid)
        if (base.name !== name) throw new StoreError('InvalidParameters', 'a snapshot keeps the name of its VDI')
        return vdiReply(await sheep.snapshot(baseVid, ''))
      }
      if (request.blockSizeShift && request.blockSizeShift !== BLOCK_SIZE_SHIFT_DEFAULT) {
        throw new StoreError('Unsupported', `objects of 2^${request.blockSizeShift} bytes`)
      }
      return vdiReply(await sheep.createVdi(name, request.vdiSize ?? 0, baseVid))
    },
  },
  [OP.SNAPSHOT_VDI]: {
    kind: 'cluster',
    run: async (sheep, request) => {
      const tag = cString(body(request), 0, body(request).length)
      return ioReply(await sheep.snapshot(request.vid ?? 0, tag))
    },
  },
  [OP.RESIZE_VDI]: {
    kind: 'cluster',
    run: async (sheep, request) => {
      await sheep.resizeVdi(request.vid ?? 0, request.vdiSize ?? 0)
      return { result: RESULT.SUCCESS }
    },
  },
  [OP.ROLLBACK_VDI]: {
    kind: 'cluster',
    run: async (sheep, request) => {
      const snapshot = findVdi(sheep, request)
      return vdiReply(await sheep.rollbackVdi(sheep.state.find(snapshot.name).vid, snapshot.vid))
    },
  },
  [OP.READ_OBJ]: {
    kind: 'local',
    run: async (sheep, request) => {
      const oid = request.oid ?? 0n
      const bytes = oidKind(oid) === 'attr' ? await attributeObject(sheep, oid) : null
      if (!bytes) return { result: RESULT.NO_OBJ }
      const offset = request.offset ?? 0
      return { result: RESULT.SUCCESS, body: bytes.subarray(offset, offset + (request.dataLength ?? 0)) }
    },
  },
  [OP.GET_VDI_ATTR]: { kind: 'cluster', run: attributeRequest },
  [OP.LIST_ATTRIBUTES]: {
    kind: 'local',
    run: (sheep, request) => {
      const attributes = sheep.state.attributes.of(findVdi(sheep, { ...request, snapId: request.vid ?? 0 }).vid)
      return jsonReply(attributes.map(({ key, valueBytes, createdAt }) => ({ key, valueBytes, createdAt })))
    },
  },
  [OP.LIST_LOCKS]: { kind: 'local', run: (sheep) => jsonReply([...sheep.state.locks.values()]) },
  [OP.UNLOCK_VDI]: {
    kind: 'cluster',
    run: async (sheep, request) => {
      await sheep.unlock(body(request).toString())
      return { result: RESULT.SUCCESS }
    },
  },
  [OP.GET_VDI_INFO]: { kind: 'cluster', run: (sheep, request) => vdiReply(findVdi(sheep, request)) },
  [OP.DEL_VDI]: {
    kind: 'cluster',
    run: async (sheep, request) => {
      const vdi = findVdi(sheep, request)
      await sheep.deleteVdi(vdi.vid)
      return vdiReply(vdi)
    },
  },
  [OP.READ_VDIS]: {
    kind: 'local',
    run: (sheep, request) => bitmap(request, sheep.state.vdis.values()),
  },
  [OP.READ_DEL_VDIS]: {
    kind: 'local',
    run: (sheep, request) =>
      bitmap(
        request,
        [...sheep.state.vdis.values()].filter((vdi) => vdi.deleting),
      ),
  },
  [OP.LIST_VDIS]: {
    kind: 'local',
    run: (sheep, request) => {
      const vdis = request.body ? sheep.state.vdisOf(request.body.toString()) : vdisAfter(sheep, request.vid ?? 0)
      return { result: RESULT.SUCCESS, body: Buffer.from(JSON.stringify(vdis)) }
    },
  },
  [OP.STAT_STORE]: {
    kind: 'local',
    run: async (sheep) => {
      const { totalBytes, freeBytes } = await sheep.stats()
      const provisionedBytes = sheep.state.provisionedBytes
      return { result: RESULT.SUCCESS, body: Buffer.from(JSON.stringify({ totalBytes, freeBytes, provisionedBytes })) }
    },
  },
  [OP.GET_CLUSTER_DEFAULT]: {
    kind: 'local',
    run: (sheep) => ({
      result: RESULT.SUCCESS,
      copies: sheep.copies,
      copyPolicy: 0,
      blockSizeShift: BLOCK_SIZE_SHIFT_DEFAULT,
    }),
  },
  [OP.STAT_SHEEP]: {
    kind: 'local',
    run: async (sheep) => {
      const stats = await sheep.stats()
      return { result: RESULT.SUCCESS, storeSize: stats.totalBytes, storeFree: stats.freeBytes }
    },
  },

  [OP.PUT_EXPORT]: {
    kind: 'cluster',
    run: async (sheep, request) => {
      await sheep.putExport(parseRight(body(request)))
      return { result: RESULT.SUCCESS }
    },
  },
  [OP.REMOVE_EXPORT]: {
    kind: 'cluster',
    run: async (sheep, request) => {
      await sheep.removeExport(body(request).toString())
      return { result: RESULT.SUCCESS }
    },
  },
  [OP.LIST_EXPORTS]: {
    kind: 'local',
    run: (sheep, request) => {
      const rights = sheep.state.exportsOf(sheep.state.find(body(request).toString()).vid)
      return { result: RESULT.SUCCESS, body: Buffer.from(JSON.stringify(rights)) }
    },
  },
  [OP.GET_EXPORT]: {
    kind: 'local',
    run: (sheep, request) => {
      const right = sheep.state.exportByHash(body(request).toString())
      if (!right) throw new StoreError('NoExport')
      return { result: RESULT.SUCCESS, body: Buffer.from(JSON.stringify(right)) }
    },
  },
}

/**
 * Runs one request. `reply` is called exactly once, perhaps before this returns; nothing is thrown. Opcodes that this node
 * does not know are answered with INVALID_PARMS, as upstream does.
 */
export function runOperation(
  sheep: Sheep,
  request: SheepRequest,
  holder: Holder,
  reply: (response: Reply) => void,
): void {
  const operation = OPERATIONS[request.opcode]
  if (!operation) return reply({ result: RESULT.INVALID_PARMS })
  if (sheep.failure) return reply({ result: resultOf(sheep.failure) })
  try {
    if (operation.kind === 'gateway') {
      return operation.run(sheep.sessions.get(request.session ?? 0, holder), request, reply)
    }
    Promise.resolve(operation.run(sheep, request, holder)).then(reply, (error) => reply({ result: resultOf(error) }))
  } catch (error) {
    reply({ result: resultOf(error) })
  }
}

/** A buffer for what a client wants to read, if that is no more than it offered to take. */
function answerBuffer({ length = 0, dataLength = 0 }: SheepRequest): Buffer {
  if (length > dataLength) throw new StoreError('InvalidParameters', 'more is wanted than was offered room for')
  return Buffer.allocUnsafe(length)
}

function discard(session: Session, request: SheepRequest, reply: (response: Reply) => void): void {
  const durable = ((request.flags ?? 0) & FLAG.FUA) !== 0
  session.discard(request.offset ?? 0, request.length ?? 0, durable, answer(reply))
}

/** Keeps an answer of LIST_VDIS well below the limit of a frame. */
const VDIS_PER_ANSWER = 4096

const answer =
  (reply: (response: Reply) => void): StoreDone =>
  (error) =>
    reply({ result: error ? resultOf(error) : RESULT.SUCCESS })

function body(request: SheepRequest): Buffer {
  if (!request.body) throw new StoreError('InvalidParameters', 'the request has no body')
  return request.body
}

function findVdi(sheep: Sheep, request: SheepRequest): Vdi {
  const names = body(request)
  const name = cString(names, 0, VDI_NAME_SIZE_BYTES)
  const tag = cString(names, VDI_NAME_SIZE_BYTES, names.length)
  return sheep.state.find(name, { tag, snapId: request.snapId ?? 0 })
}

/** A name in a field of fixed size: what stands before the first NUL. */
function cString(bytes: Buffer, start: number, end: number): string {
  const text = decodeText(bytes.subarray(start, end))
  if (text === null) throw new StoreError('InvalidParameters', 'a name that is not UTF-8')
  return text
}

function vdiReply(vdi: Vdi): Reply {
  return { result: RESULT.SUCCESS, vdiId: vdi.vid, copies: vdi.copies, blockSizeShift: BLOCK_SIZE_SHIFT_DEFAULT }
}

function jsonReply(value: unknown): Reply {
  return { result: RESULT.SUCCESS, body: Buffer.from(JSON.stringify(value)) }
}

function ioReply(vdi: Vdi): Reply {
  return { result: RESULT.SUCCESS, vdiId: vdi.vid, vdiSize: vdi.sizeBytes }
}

function bitmap(request: SheepRequest, vdis: Iterable<Vdi>): Reply {
  if (request.dataLength !== VDI_BITMAP_SIZE_BYTES) throw new StoreError('InvalidParameters', 'the bitmap has 2 MiB')
  const bits = Buffer.alloc(VDI_BITMAP_SIZE_BYTES)
  for (const { vid } of vdis) bits[vid >>> 3]! |= 1 << (vid & 7)
  return { result: RESULT.SUCCESS, body: bits }
}

/** The next of all VDIs in the order of their vids. */
function vdisAfter(sheep: Sheep, vid: number): Vdi[] {
  return [...sheep.state.vdis.values()]
    .filter((vdi) => vdi.vid > vid && !vdi.deleting)
    .sort((a, b) => a.vid - b.vid)
    .slice(0, VDIS_PER_ANSWER)
}

function parseRight(json: Buffer): ExportRight {
  const { attachmentId, nameHash, vid, readOnly } = parseObject(json) as Partial<ExportRight>
  const valid =
    typeof attachmentId === 'string' &&
    attachmentId !== '' &&
    typeof nameHash === 'string' &&
    /^[0-9a-f]{64}$/.test(nameHash) &&
    typeof vid === 'number' &&
    Number.isInteger(vid) &&
    typeof readOnly === 'boolean'
  if (!valid) throw new StoreError('InvalidParameters', 'not an export right')
  return { attachmentId, nameHash, vid, readOnly }
}

function parseObject(json: Buffer): object {
  try {
    const value: unknown = JSON.parse(json.toString())
    return typeof value === 'object' && value !== null ? value : {}
  } catch {
    throw new StoreError('InvalidParameters', 'not JSON')
  }
}
