import { isDeepStrictEqual } from 'node:util'
import * as attachments from '../db/attachments.ts'
import { type Db, isShared } from '../db/database.ts'
import * as volumes from '../db/volumes.ts'
import * as workRows from '../db/work.ts'
import type { Connector } from '../drivers/driver.ts'
import { ServiceError } from '../errors.ts'
import { dropAttachment, followAttachments } from './attached-status.ts'
import type { RequestContext } from './context.ts'
import { checkNotProtected, unlessNovaHasIt } from './instance-guard.ts'
import type { Attachment, AttachmentCreate } from './model.ts'
import type { Parts } from './parts.ts'
import { toAttachment, toPairs } from './rows.ts'
import type { AttachmentService } from './services.ts'
import type { Stamp } from './stamp.ts'
import { toListing, visibleAttachment, visibleVolume } from './visibility.ts'
import { ATTACHMENT_ACTIONS, mayIn, VOLUME_ACTIONS, VOLUME_PERMISSIONS } from './volume-status.ts'

export function createAttachmentService(parts: Parts): AttachmentService {
  const { db } = parts
  return {
    create: (context, request) => createAttachment(parts, context, request),
    get: async (context, id) => {
      const row = visibleAttachment(context, id, await attachments.find(db, id))
      context.authorize('volume:get', { projectId: row.project_id })
      return toAttachment(row)
    },
    list: async (context, query, options) => {
      context.authorize('volume:get_all', { projectId: context.projectId })
      const { rows, ...page } = await attachments.list(db, toListing(context, query), options)
      return { ...page, items: rows.map(toAttachment) }
    },
    update: (context, id, connector) => connectAttachment(parts, context, id, connector),
    complete: (context, id) => completeAttachment(parts, context, id),
    delete: (context, id) =>
      unlessNovaHasIt(parts, context, (forgotten) => deleteAttachment(parts, context, id, forgotten)),
  }
}

async function createAttachment(parts: Parts, context: RequestContext, request: AttachmentCreate): Promise<Attachment> {
  const { db, stamp, work } = parts
  const { row, unit } = await db.transaction(async (trx) => {
    const volume = visibleVolume(context, request.volumeId, await volumes.lock(trx, request.volumeId))
    context.authorize('volume:attachment_create', { projectId: volume.project_id })
    if (!mayIn(volume.status, request.connector === null ? 'makeAttachment' : 'connect')) {
      const reason =
        'Volume attachments can not be created if the volume is in an error state. ' +
        `The Volume ${volume.id} currently has a status of: ${volume.status} `
      throw new ServiceError('InvalidVolume', { reason })
    }
    await reserve(trx, parts, context, volume, request.instanceId)
    if (request.connector !== null) {
      const others = await attachments.ofVolume(trx, volume.id)
      // After an administrator wrote that the volume is available, the backend may still know of a connection.
      checkNotConnected(
        volume,
        others.filter((other) => !isOfInstance(other, request.instanceId)),
      )
    }
    const mode = attachModeOf(volume, request.mode)
    const row = newAttachmentRow(parts, volume, { instanceId: request.instanceId, mode })
    await attachments.insert(trx, row)
    if (request.connector === null) return { row, unit: null }
    const connected = await takeConnector(trx, stamp, row, request.connector)
    const unit = await work.enqueue(trx, {
      kind: 'attachment-connect',
      resourceId: row.id,
      lane: volume.id,
      step: 'create-export',
      requestId: context.requestId,
      params: { created: true },
    })
    return { row: connected, unit }
  })
  if (unit === null) return toAttachment(row)
  await work.finish(unit)
  return connected(db, row.id)
}

/**
 * One attachment at a time, unless the type allows several, or the same instance asks again: it is being migrated and
 * needs the volume on both hosts for a while.
 */
async function reserve(
  trx: Db,
  { stamp }: Parts,
  context: RequestContext,
  volume: volumes.VolumeRow,
  instanceId: string | null,
): Promise<void> {
  if (volume.multiattach && volume.status === 'in-use' && volume.bootable) {
    context.authorize('volume:multiattach_bootable_volume', { projectId: volume.project_id })
  }
  const { from, to } = volume.multiattach ? VOLUME_ACTIONS.reserveShared : VOLUME_ACTIONS.reserve
  if (await volumes.compareAndSet(trx, volume.id, { from, to, updatedAt: stamp() })) return
  const others = await attachments.ofVolume(trx, volume.id)
  if (mayIn(volume.status, 'reserveAhead') && (volume.multiattach || others.length === 0)) return
  const sameInstance = others.some((other) => isOfInstance(other, instanceId))
  if (sameInstance && mayIn(volume.status, 'reserveAgain')) return
  const reason = `Volume ${volume.id} status must be ${[...from, ...VOLUME_PERMISSIONS.reserveAhead].join(' or ')} to reserve, but the current status is ${volume.status}.`
  throw new ServiceError('InvalidVolume', { reason })
}

const isOfInstance = (row: attachments.AttachmentRow, instanceId: string | null) =>
  instanceId !== null && row.instance_id === instanceId

/** Refuses a second connection beside one that there is, or that is being made. */
function checkNotConnected(volume: volumes.VolumeRow, others: readonly attachments.AttachmentRow[]): void {
  if (volume.multiattach) return
  if (others.some((other) => other.connection_info !== null || other.status === 'attaching')) {
    throw conflict(`duplicate connectors detected on volume ${volume.id}`)
  }
}

async function connectAttachment(
  parts: Parts,
  context: RequestContext,
  id: string,
  connector: Connector,
): Promise<Attachment> {
  const { db, stamp, work } = parts
  const unit = await db.transaction(async (trx) => {
    const { row, volume } = await lockWithVolume(trx, context, id)
    context.authorize('volume:attachment_update', { projectId: row.project_id })
    if (!mayIn(volume.status, 'connect')) {
      throw conflict(
        'Volume attachments can not be updated if the volume is in an error state. ' +
          `The Volume ${volume.id} currently has a status of: ${volume.status} `,
      )
    }
    // The answer to a repeated request is the right that is in force: another would cut it off.
    if (row.connection_info !== null && isDeepStrictEqual(connector, JSON.parse(row.connector ?? 'null'))) return null
    const others = (await attachments.ofVolume(trx, volume.id)).filter((other) => other.id !== id)
    checkNotConnected(volume, others)
    if ((await workRows.findByResource(trx, id)) !== undefined) {
      throw conflict(`another request is changing attachment ${id}`)
    }
    await takeConnector(trx, stamp, row, connector)
    return work.enqueue(trx, {
      kind: 'attachment-connect',
      resourceId: id,
      lane: volume.id,
      step: 'create-export',
      params: { modeOfConnector: row.attach_mode === null },
      requestId: context.requestId,
    })
  })
  if (unit !== null) await work.finish(unit)
  return connected(db, id)
}

interface NewAttachment {
  instanceId: string | null
  mode: 'rw' | 'ro' | null
  /** The old way. */
  madeByConnection?: boolean
}

export function newAttachmentRow(
  { random, stamp }: Parts,
  volume: volumes.VolumeRow,
  { instanceId, mode, madeByConnection = false }: NewAttachment,
): attachments.AttachmentRow {
  return {
    id: random.uuid(),
    project_id: volume.project_id,
    volume_id: volume.id,
    instance_id: instanceId,
    status: 'reserved',
    status_reason: null,
    attach_mode: mode,
    connector: null,
    connection_info: null,
    attached_host: null,
    mountpoint: null,
    attached_at: null,
    detached_at: null,
    made_by_connection: madeByConnection,
    created_at: stamp(),
    updated_at: null,
  }
}

/** A volume that was made read-only is attached read-only, whatever is asked for. */
export function attachModeOf(volume: volumes.VolumeRow, mode: 'rw' | 'ro' | null): 'rw' | 'ro' | null {
  return toPairs(volume.admin_metadata).readonly === 'True' ? 'ro' : mode
}

/** Writes who will connect, before the backend is asked, so that nothing it did is left without a row. */
export async function takeConnector(
  trx: Db,
  stamp: Stamp,
  row: attachments.AttachmentRow,
  connector: Connector,
): Promise<attachments.AttachmentRow> {
  const set = {
    attach_mode: row.attach_mode ?? (connector.mode === 'ro' ? ('ro' as const) : ('rw' as const)),
    connector: JSON.stringify(connector),
    connection_info: null,
    attached_host: connector.host ?? null,
    mountpoint: typeof connector.mountpoint === 'string' ? connector.mountpoint : null,
  }
  const { connect, connectCompleted } = ATTACHMENT_ACTIONS
  const { to } = connect
  const from = row.connector === null ? [...connect.from, ...connectCompleted.from] : connect.from
  if (!(await attachments.compareAndSet(trx, row.id, { from, to, updatedAt: stamp(), set }))) {
    throw conflict(`attachment ${row.id} is ${row.status} and cannot be given another connector`)
  }
  return { ...row, ...set, status: to }
}

async function completeAttachment({ db, stamp }: Parts, context: RequestContext, id: string): Promise<void> {
  await db.transaction(async (trx) => {
    const { row } = await lockWithVolume(trx, context, id)
    context.authorize('volume:attachment_complete', { projectId: row.project_id })
    const won = await attachments.compareAndSet(trx, id, {
      ...ATTACHMENT_ACTIONS.complete,
      updatedAt: stamp(),
      // Not while a connection is being made.
      where: (query) => query.where((one) => one.whereNot('status', 'attaching').orWhereNotNull('connection_info')),
    })
    if (!won) {
      const reason = `Attachment ${id} must not be connecting to be completed, but it is ${row.status}.`
      throw new ServiceError('InvalidAttachment', { reason })
    }
    await followAttachments(trx, row.volume_id, stamp())
  })
}

async function deleteAttachment(
  parts: Parts,
  context: RequestContext,
  id: string,
  forgotten: string | null,
): Promise<Attachment[]> {
  const { db, settings, stamp, work } = parts
  const { volumeId, unit } = await db.transaction(async (trx) => {
    const { row } = await lockWithVolume(trx, context, id)
    context.authorize('volume:attachment_delete', { projectId: row.project_id })
    checkNotProtected(context, settings, [row], { attachmentId: id, forgotten })
    const volumeId = row.volume_id
    if (row.connector === null && (await workRows.findByResource(trx, id)) === undefined) {
      await dropAttachment(trx, row, stamp()) // it never had an export
      return { volumeId, unit: null }
    }
    const unit = await work.enqueue(trx, {
      kind: 'attachment-disconnect',
      resourceId: id,
      lane: volumeId,
      step: 'remove-export',
      requestId: context.requestId,
    })
    return { volumeId, unit }
  })
  if (unit !== null) await work.finish(unit)
  const left = await attachments.ofVolume(db, volumeId)
  const failed = unit && left.find((row) => row.id === id)
  if (failed) throw endedElsewhere(failed.status_reason)
  return left.map(toAttachment)
}

/**
 * The attachment, which nothing changes until the transaction ends: whoever changes one locks its volume first, so that two who
 * change both never wait for each other.
 */
async function lockWithVolume(trx: Db, context: RequestContext, id: string) {
  const found = visibleAttachment(context, id, await attachments.find(trx, id))
  const volume = visibleVolume(context, found.volume_id, await volumes.lock(trx, found.volume_id))
  // Others may have changed it while the lock was theirs.
  const row = isShared(trx) ? visibleAttachment(context, id, await attachments.find(trx, id)) : found
  return { row, volume }
}

/** What the work made of an attachment; another process may have taken it over and undone it. */
async function connected(db: Db, id: string): Promise<Attachment> {
  const row = await attachments.find(db, id)
  if (row === undefined || row.connection_info === null) throw endedElsewhere(row?.status_reason ?? null)
  return toAttachment(row)
}

function endedElsewhere(reason: string | null): ServiceError {
  const cause = reason ?? 'the process that worked on it was gone for too long, and another one ended its work'
  return new ServiceError('ServiceUnavailable', { reason: `The request was not carried out: ${cause}. Try again.` })
}

export function conflict(reason: string): ServiceError {
  return new ServiceError('ResourceConflict', { reason: `Resource conflict: ${reason}` })
}
