import * as backups from '../db/backups.ts'
import type { Db } from '../db/database.ts'
import * as groups from '../db/groups.ts'
import * as messages from '../db/messages.ts'
import * as volumes from '../db/volumes.ts'
import { ServiceError } from '../errors.ts'
import type { Clock, Timer } from '../runtime/clock.ts'
import type { Log } from '../runtime/log.ts'
import type { Random } from '../runtime/random.ts'
import {
  MESSAGE_ACTIONS,
  MESSAGE_DETAILS,
  type MessageAction,
  type MessageDetail,
  userMessage,
} from './message-texts.ts'
import type { Message } from './model.ts'
import type { Parts } from './parts.ts'
import type { MessageService } from './services.ts'
import { formatMicroseconds, type Stamp } from './stamp.ts'
import { canSee, toListing } from './visibility.ts'
import { failureOf } from './work/failures.ts'
import type { WorkUnit } from './work/kind.ts'

/** What a message can be about, in upstream's words. */
export type MessageResource = 'VOLUME' | 'VOLUME_SNAPSHOT' | 'VOLUME_BACKUP' | 'VOLUME_GROUP' | 'VOLUME_GROUP_SNAPSHOT'

export interface NewMessage {
  projectId: string
  requestId: string | null
  resourceType: MessageResource
  resourceId: string
  action: MessageAction
  detail: MessageDetail
  level?: 'ERROR' | 'WARNING' | 'INFO'
}

export interface MessageParts {
  clock: Clock
  random: Random
  stamp: Stamp
  settings: { messageTtlMs: number }
}

/** Writes a message in the transaction of the status that it explains. */
export async function recordMessage(
  trx: Db,
  { clock, random, stamp, settings }: MessageParts,
  { projectId, requestId, resourceType, resourceId, action, detail, level = 'ERROR' }: NewMessage,
): Promise<void> {
  const actionId = MESSAGE_ACTIONS[action].id
  const detailId = MESSAGE_DETAILS[detail].id
  await messages.insert(trx, {
    id: random.uuid(),
    project_id: projectId,
    request_id: requestId,
    resource_type: resourceType,
    resource_uuid: resourceId,
    event_id: `VOLUME_${resourceType}_${actionId}_${detailId}`,
    message_level: level,
    action_id: actionId,
    detail_id: detailId,
    created_at: stamp(),
    expires_at: formatMicroseconds((clock.now() + settings.messageTtlMs) * 1000),
  })
}

/**
 * Tells the owner of the volume that work on it, or on what hangs on it, was given up. Upstream tells the project that
 * asked; an owner whose volume an administrator extended would then never learn why it is in error.
 */
export function failureRecorder(parts: MessageParts) {
  return async (trx: Db, unit: WorkUnit, error: ServiceError): Promise<void> => {
    // A backup outlives its volume; the lane of an upload is its own.
    const volumeId = unit.kind === 'volume-upload' ? String(unit.params.volumeId) : unit.lane
    const owner =
      (await volumes.find(trx, volumeId)) ??
      (await backups.find(trx, unit.resourceId)) ??
      (await groups.find(trx, unit.lane))
    if (owner === undefined) return
    const message = { ...failureOf(unit, error), projectId: owner.project_id, requestId: unit.requestId }
    await recordMessage(trx, parts, message)
  }
}

export function createMessageService({ db }: Pick<Parts, 'db'>): MessageService {
  async function visible(context: Parameters<MessageService['get']>[0], id: string): Promise<messages.MessageRow> {
    const row = await messages.find(db, id)
    if (row === undefined || !canSee(context, row)) throw new ServiceError('MessageNotFound', { message_id: id })
    return row
  }
  return {
    get: async (context, id) => {
      const row = await visible(context, id)
      context.authorize('message:get', { projectId: row.project_id })
      return toMessage(row)
    },
    list: async (context, query) => {
      context.authorize('message:get_all', { projectId: context.projectId })
      // Upstream shows an administrator those of all projects, asked or not.
      const { rows, ...page } = await messages.list(db, toListing(context, { ...query, allProjects: context.isAdmin }))
      return { ...page, items: rows.map(toMessage) }
    },
    delete: async (context, id) => {
      const row = await visible(context, id)
      context.authorize('message:delete', { projectId: row.project_id })
      await messages.remove(db, id)
    },
  }
}

export function toMessage(row: messages.MessageRow): Message {
  return {
    id: row.id,
    requestId: row.request_id,
    resourceType: row.resource_type,
    resourceId: row.resource_uuid,
    eventId: row.event_id,
    level: row.message_level,
    text: userMessage(row.action_id, row.detail_id),
    createdAt: row.created_at,
    expiresAt: row.expires_at,
  }
}

const SWEEP_BATCH_ROWS = 500
const SWEEP_INTERVAL_MS = 3_600_000
/** Between batches, so that requests get at the database. */
const SWEEP_PAUSE_MS = 50

/** Removes expired messages, now and every hour, a few at a time. */
export function createMessageSweep({ db, clock, log }: { db: Db; clock: Pick<Clock, 'now' | 'timer'>; log: Log }) {
  let timer: Timer | null = null
  let sweeping: Promise<void> = Promise.resolve()
  let stopped = true

  async function sweep(): Promise<void> {
    let delayMs = SWEEP_INTERVAL_MS
    try {
      const removed = await messages.removeExpired(db, formatMicroseconds(clock.now() * 1000), SWEEP_BATCH_ROWS)
      if (removed === SWEEP_BATCH_ROWS) delayMs = SWEEP_PAUSE_MS
    } catch (error) {
      log.warn({ err: error }, 'expired messages could not be removed')
    }
    if (!stopped) timer = clock.timer(delayMs, run)
  }

  function run(): void {
    sweeping = sweep()
  }

  return {
    start: (): void => {
      stopped = false
      run()
    },
    /** Resolves when it does nothing more with the database. */
    stop: async (): Promise<void> => {
      stopped = true
      timer?.cancel()
      await sweeping
    },
  }
}
