import { StoreError } from '../../errors.ts'
import { FLAG, RESULT } from '../../protocol/constants.ts'
import type { SheepRequest } from '../../protocol/message.ts'
import { encodeExtents } from '../../protocol/structs.ts'
import { resultOf } from '../../results.ts'
import { tellMarks } from '../content-marks.ts'
import type { StoreDone } from '../object-store.ts'
import { bodyOf } from '../request-body.ts'
import type { Reply } from '../server.ts'
import type { Session } from '../session.ts'
import type { Sheep } from '../sheep.ts'

/**
 * Collie's own requests on a session: gateways open one on a VDI, and read and write ranges of bytes through it. Those that move
 * bytes answer through a callback, because they are the hot path.
 */

type Answer = (response: Reply) => void

/** A session that ends with the connection `holder`; with a body under the export right of that hash, else on `vid`. */
export async function openVdi(sheep: Sheep, request: SheepRequest, holder: object | null): Promise<Reply> {
  const { flags = 0 } = request
  const readOnly = (flags & FLAG.READ_ONLY) !== 0
  const session = request.body?.length
    ? await sheep.openExport(
        request.body.toString(),
        holder,
        (flags & FLAG.RESUME) !== 0 ? (request.opening ?? 0) : null,
      )
    : sheep.sessions.openAnonymous(request.vid ?? 0, readOnly, holder)
  const opening = sheep.state.exports.get(session.attachmentId ?? '')?.gateway?.opening ?? 0
  return { result: RESULT.SUCCESS, session: session.id, vdiSize: session.sizeBytes, opening }
}

export async function closeVdi(sheep: Sheep, request: SheepRequest, holder: object | null): Promise<Reply> {
  await sheep.sessions.close(sheep.sessions.get(request.session ?? 0, holder).id)
  return { result: RESULT.SUCCESS }
}

export async function extents(sheep: Sheep, request: SheepRequest, holder: object | null): Promise<Reply> {
  const session = sheep.sessions.get(request.session ?? 0, holder)
  const found = await session.extents(request.offset ?? 0, request.length ?? 0)
  return { result: RESULT.SUCCESS, body: encodeExtents(found, request.dataLength ?? 0) }
}

export async function marks(sheep: Sheep, request: SheepRequest, holder: object | null): Promise<Reply> {
  const session = sheep.sessions.get(request.session ?? 0, holder)
  const told = await tellMarks(sheep.state, sheep.node, session, request.offset ?? 0, request.length ?? 0)
  return { result: RESULT.SUCCESS, body: Buffer.from(JSON.stringify(told)) }
}

export function statSession(session: Session, _request: SheepRequest, reply: Answer): void {
  reply({ result: RESULT.SUCCESS, vdiSize: session.sizeBytes })
}

export function read(session: Session, request: SheepRequest, reply: Answer): void {
  const target = request.target ?? answerBuffer(request)
  session.read(request.offset ?? 0, target, (error) => {
    reply(error ? { result: resultOf(error) } : { result: RESULT.SUCCESS, body: target })
  })
}

export function write(session: Session, request: SheepRequest, reply: Answer): void {
  session.write(request.offset ?? 0, bodyOf(request), isDurable(request), answer(reply), request.crcs)
}

/** DISCARD_VDI and ZERO_VDI. */
export function discard(session: Session, request: SheepRequest, reply: Answer): void {
  session.discard(request.offset ?? 0, request.length ?? 0, isDurable(request), answer(reply))
}

export function flush(session: Session, _request: SheepRequest, reply: Answer): void {
  session.flush(answer(reply))
}

const isDurable = ({ flags = 0 }: SheepRequest): boolean => (flags & FLAG.FUA) !== 0

/** A buffer for what a client wants to read, if that is no more than it offered to take. */
function answerBuffer({ length = 0, dataLength = 0 }: SheepRequest): Buffer {
  if (length > dataLength) throw new StoreError('InvalidParameters', 'more is wanted than was offered room for')
  return Buffer.allocUnsafe(length)
}

const answer =
  (reply: Answer): StoreDone =>
  (error) =>
    reply({ result: error ? resultOf(error) : RESULT.SUCCESS })
