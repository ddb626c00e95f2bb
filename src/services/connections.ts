import { isDeepStrictEqual } from 'node:util'
import * as attachments from '../db/attachments.ts'
import type { Db } from '../db/database.ts'
import * as volumes from '../db/volumes.ts'
import * as workRows from '../db/work.ts'
import type { ConnectionInfo, Connector } from '../drivers/driver.ts'
import { ServiceError } from '../errors.ts'
import { dropAttachment, followAttachments } from './attached-status.ts'
import { attachModeOf, conflict, newAttachmentRow, takeConnector } from './attachments.ts'
import type { RequestContext } from './context.ts'
import { checkNotProtected, unlessNovaHasIt } from './instance-guard.ts'
import { mergeMetadata } from './metadata.ts'
import type { OldAttach } from './model.ts'
import type { Parts } from './parts.ts'
import { toPairs } from './rows.ts'
import type { ConnectionService } from './services.ts'
import { canSee, visibleVolume } from './visibility.ts'
import { ATTACHMENT_ACTIONS, mayIn, VOLUME_ACTIONS, VOLUME_PERMISSIONS } from './volume-status.ts'
import type { WorkUnit } from './work/kind.ts'

/**
 * The way to attach that was there before attachments, on the same rows and the same exports: os-initialize_connection
 * makes an attachment of no instance, os-attach gives it one, os-terminate_connection and os-detach take it down. What one
 * way leaves the other can end.
 */
export function createConnectionService(parts: Parts): ConnectionService {
  return {
    reserve: (context, volumeId) => reserve(parts, context, volumeId),
    unreserve: (context, volumeId) => unreserve(parts, context, volumeId),
    initialize: (context, volumeId, connector) => initialize(parts, context, volumeId, connector),
    terminate: (context, volumeId, connector) => terminate(parts, context, volumeId, connector),
    attach: (context, volumeId, request) => attach(parts, context, volumeId, request),
    detach: (context, volumeId, attachmentId) => detach(parts, context, volumeId, attachmentId),
    forceDetach: async (context, volumeId, { attachmentId, connector }) => {
      const volume = visibleVolume(context, volumeId, await volumes.find(parts.db, volumeId))
      const rule = 'volume_extension:volume_admin_actions:force_detach'
      context.authorize(rule, { projectId: volume.project_id })
      if (connector !== null || attachmentId === null) await terminate(parts, context, volumeId, connector)
      await detach(parts, context, volumeId, attachmentId, 'force detaching')
    },
  }
}

async function reserve({ db, stamp }: Parts, context: RequestContext, volumeId: string): Promise<void> {
  await db.transaction(async (trx) => {
    const volume = visibleVolume(context, volumeId, await volumes.lock(trx, volumeId))
    context.authorize('volume_extension:volume_actions:reserve', { projectId: volume.project_id })
    const { from, to } = VOLUME_ACTIONS[volume.multiattach ? 'claimShared' : 'claim']
    if (await volumes.compareAndSet(trx, volumeId, { from, to, updatedAt: stamp() })) return
    const reason = `Volume status must be ${from.join(' or ')} to reserve, but the status is ${volume.status}.`
    throw new ServiceError('InvalidVolume', { reason })
  })
}

/** Succeeds in any status; a volume that is connected stays as it is. */
async function unreserve({ db, stamp }: Parts, context: RequestContext, volumeId: string): Promise<void> {
  await db.transaction(async (trx) => {
    const volume = visibleVolume(context, volumeId, await volumes.lock(trx, volumeId))
    context.authorize('volume_extension:volume_actions:unreserve', { projectId: volume.project_id })
    await followAttachments(trx, volumeId, stamp(), { from: ['attaching'] })
  })
}

async function initialize(
  parts: Parts,
  context: RequestContext,
  volumeId: string,
  connector: Connector,
): Promise<ConnectionInfo> {
  const { db, stamp, work } = parts
  const { id, unit } = await db.transaction(async (trx) => {
    const volume = visibleVolume(context, volumeId, await volumes.lock(trx, volumeId))
    context.authorize('volume_extension:volume_actions:initialize_connection', { projectId: volume.project_id })
    if (!mayIn(volume.status, 'initializeConnection')) {
      const reason =
        volume.status === 'maintenance'
          ? 'The volume connection cannot be initialized in maintenance mode.'
          : `The volume connection cannot be initialized while the volume is ${volume.status}.`
      throw new ServiceError('InvalidVolume', { reason })
    }
    const others = await attachments.ofVolume(trx, volumeId)
    const same = others.find((other) => isDeepStrictEqual(connectorOf(other), connector))
    if (same !== undefined) {
      if (same.connection_info !== null) return { id: same.id, unit: null }
      throw conflict(`another request is changing attachment ${same.id}`)
    }
    if (!volume.multiattach && others.some((other) => other.connector !== null)) {
      throw conflict(`duplicate connectors detected on volume ${volumeId}`)
    }
    const row = newAttachmentRow(parts, volume, {
      instanceId: null,
      mode: attachModeOf(volume, null),
      madeByConnection: true,
    })
    await attachments.insert(trx, row)
    await takeConnector(trx, stamp, row, connector)
    // One that was not claimed before is now, or an attachment could be made beside this one.
    await followAttachments(trx, volumeId, stamp(), { from: ['available'] })
    const unit = await work.enqueue(trx, {
      kind: 'attachment-connect',
      resourceId: row.id,
      lane: volumeId,
      step: 'create-export',
      params: { created: true },
      requestId: context.requestId,
    })
    return { id: row.id, unit }
  })
  if (unit !== null) await work.finish(unit)
  const row = await attachments.find(db, id)
  if (row?.connection_info == null) throw conflict(`attachment ${id} was taken down again`)
  return JSON.parse(row.connection_info)
}

function terminate(
  parts: Parts,
  context: RequestContext,
  volumeId: string,
  connector: Connector | null,
): Promise<void> {
  return unlessNovaHasIt(parts, context, (forgotten) =>
    terminateOnce(parts, context, volumeId, { connector, forgotten }),
  )
}

async function terminateOnce(
  parts: Parts,
  context: RequestContext,
  volumeId: string,
  { connector, forgotten }: { connector: Connector | null; forgotten: string | null },
): Promise<void> {
  const { db, settings, stamp, work } = parts
  const units = await db.transaction(async (trx) => {
    const volume = visibleVolume(context, volumeId, await volumes.lock(trx, volumeId))
    context.authorize('volume_extension:volume_actions:terminate_connection', { projectId: volume.project_id })
    const all = await attachments.ofVolume(trx, volumeId)
    checkNotProtected(context, settings, all, { attachmentId: null, forgotten })
    const units: WorkUnit[] = []
    for (const row of all.filter((row) => row.connector !== null && isOf(row, connector))) {
      units.push(await disconnect(trx, parts, context, row, { keep: row.status === 'attached' }))
    }
    await followAttachments(trx, volumeId, stamp(), { from: ['attaching'] })
    return units
  })
  await Promise.all(units.map((unit) => work.finish(unit)))
}

async function attach(
  parts: Parts,
  context: RequestContext,
  volumeId: string,
  { instanceId, hostName, mountpoint, mode }: OldAttach,
): Promise<void> {
  const { db, stamp } = parts
  await db.transaction(async (trx) => {
    const volume = visibleVolume(context, volumeId, await volumes.lock(trx, volumeId))
    context.authorize('volume_extension:volume_actions:attach', { projectId: volume.project_id })
    if (!mayIn(volume.status, 'attach')) {
      const reason =
        volume.status === 'maintenance'
          ? 'The volume cannot be attached in maintenance mode.'
          : `Volume ${volumeId} status must be ${VOLUME_PERMISSIONS.attach.join(' or ')} to attach, but the current ` +
            `status is ${volume.status}.`
      throw new ServiceError('InvalidVolume', { reason })
    }
    const noted: Record<string, string> = { readonly: 'False', ...toPairs(volume.admin_metadata) }
    if (noted.readonly === 'True' && mode !== 'ro') {
      throw new ServiceError('InvalidVolumeAttachMode', { mode, volume_id: volumeId })
    }
    if (volume.status === 'attaching' && (noted.attached_mode ?? mode) !== mode) {
      throw refused('attaching', 'being attached by different mode')
    }
    const all = await attachments.ofVolume(trx, volumeId)
    const known = all.find((row) =>
      instanceId === null ? row.attached_host === hostName : row.instance_id === instanceId,
    )
    const row = known ?? all.find(({ status, instance_id }) => status === 'attaching' && instance_id === null)
    const isTaken = volume.status === 'in-use' || (row === undefined && all.some(mayBeSomebodys))
    if (known === undefined && isTaken && !volume.multiattach && !volumes.isMigrating(volume)) {
      throw refused('attaching', 'volume is already attached and multiple attachments are not enabled')
    }
    const updatedAt = stamp()
    const set = { mountpoint, attach_mode: mode, attached_at: updatedAt }
    if (row === undefined) {
      const made = newAttachmentRow(parts, volume, { instanceId, mode, madeByConnection: true })
      const { to: status } = ATTACHMENT_ACTIONS.attach
      await attachments.insert(trx, { ...made, ...set, status, attached_host: hostName })
    } else if (row.status !== 'attached') {
      const owner = { instance_id: instanceId ?? row.instance_id, attached_host: hostName ?? row.attached_host }
      const change = { ...ATTACHMENT_ACTIONS.attach, updatedAt, set: { ...set, ...owner } }
      if (!(await attachments.compareAndSet(trx, row.id, change))) {
        throw refused('attaching', `attachment ${row.id} is ${row.status}`)
      }
    }
    const adminMetadata = mergeMetadata(volume.admin_metadata, { ...noted, attached_mode: mode }, false)
    await volumes.update(trx, volumeId, { admin_metadata: adminMetadata, updated_at: updatedAt })
    await followAttachments(trx, volumeId, updatedAt)
  })
}

function detach(
  parts: Parts,
  context: RequestContext,
  volumeId: string,
  attachmentId: string | null,
  doing: 'detaching' | 'force detaching' = 'detaching',
): Promise<void> {
  return unlessNovaHasIt(parts, context, (forgotten) =>
    detachOnce(parts, context, volumeId, { attachmentId, forgotten, doing }),
  )
}

async function detachOnce(
  parts: Parts,
  context: RequestContext,
  volumeId: string,
  {
    attachmentId,
    forgotten,
    doing,
  }: { attachmentId: string | null; forgotten: string | null; doing: 'detaching' | 'force detaching' },
): Promise<void> {
  const { db, settings, stamp, work } = parts
  const unit = await db.transaction(async (trx) => {
    const volume = visibleVolume(context, volumeId, await volumes.lock(trx, volumeId))
    context.authorize('volume_extension:volume_actions:detach', { projectId: volume.project_id })
    const all = await attachments.ofVolume(trx, volumeId)
    const named = all.filter(({ id }) => attachmentId === null || id === attachmentId)
    if (named.length === 0 && attachmentId !== null) await refuseMismatch(trx, context, attachmentId)
    checkNotProtected(context, settings, all, { attachmentId, forgotten })
    if (!mayIn(volume.status, 'detach')) {
      throw new ServiceError('InvalidVolume', { reason: 'The volume cannot be detached in maintenance mode.' })
    }
    if (named.length > 1) {
      throw refused(doing, 'Detach volume failed: More than one attachment, but no attachment_id provided.')
    }
    const [row] = named
    if (row === undefined) {
      await followAttachments(trx, volumeId, stamp()) // it may say that it is being detached
      return null
    }
    if (row.connector !== null || (await workRows.findByResource(trx, row.id)) !== undefined) {
      return disconnect(trx, parts, context, row, { keep: false })
    }
    await dropAttachment(trx, row, stamp())
    return null
  })
  if (unit !== null) await work.finish(unit)
}

/** One that could not be attached was told to nobody. */
const mayBeSomebodys = ({ status }: attachments.AttachmentRow) => status !== 'error_attaching'

/** Says so only of an attachment that the caller may see; any other is as good as none. */
async function refuseMismatch(trx: Db, context: RequestContext, attachmentId: string): Promise<void> {
  const elsewhere = await attachments.find(trx, attachmentId)
  if (elsewhere === undefined || !canSee(context, elsewhere)) return
  throw new ServiceError('InvalidInput', { reason: 'Invalid input received: Mismatched volume and attachment' })
}

function disconnect(
  trx: Db,
  { work }: Parts,
  context: RequestContext,
  row: attachments.AttachmentRow,
  { keep }: { keep: boolean },
): Promise<WorkUnit> {
  const order = {
    kind: 'attachment-disconnect',
    resourceId: row.id,
    lane: row.volume_id,
    step: 'remove-export',
  } as const
  return work.enqueue(trx, { ...order, params: { keep }, requestId: context.requestId })
}

/** Hosts are what tells connectors apart; one that names none stands for itself. */
function isOf(row: attachments.AttachmentRow, connector: Connector | null): boolean {
  if (connector === null || Object.keys(connector).length === 0) return true
  const own = connectorOf(row)
  return connector.host == null ? isDeepStrictEqual(own, connector) : own?.host === connector.host
}

function connectorOf(row: attachments.AttachmentRow): Connector | null {
  return row.connector === null ? null : JSON.parse(row.connector)
}

/** As Cinder's API repeats what its volume manager said. */
function refused(doing: 'attaching' | 'detaching' | 'force detaching', reason: string): ServiceError {
  const message = new ServiceError('InvalidVolume', { reason }).message
  return new ServiceError('InvalidInput', { reason: `Error ${doing} volume - InvalidVolume: ${message}` })
}
