import * as attachments from '../db/attachments.ts'
import type { Db } from '../db/database.ts'
import type { Filters } from '../db/listing.ts'
import * as messages from '../db/messages.ts'
import * as snapshots from '../db/snapshots.ts'
import * as volumes from '../db/volumes.ts'
import * as workRows from '../db/work.ts'
import { toMessage } from './messages.ts'
import type { Message } from './model.ts'

/** What operators may ask beside the API: no tenant, no policy, only reading. */
export interface Inspection {
  /** Why a volume, snapshot or attachment is in the state it is in. Null when there is no such thing. */
  explain(resourceId: string): Promise<Explanation | null>
  /** Volumes of all projects, oldest first, from after the one of that id on; fewer than `limit` are the last. */
  listVolumes(query: {
    after: string | null
    limit: number
    status: string | null
    projectId: string | null
  }): Promise<volumes.NamedVolumeRow[]>
}

export interface Explanation {
  kind: 'volume' | 'snapshot' | 'attachment'
  id: string
  name: string | null
  projectId: string
  /** Null for attachments, which have the size of their volume. */
  sizeGib: number | null
  /** Of the volume, or of the one that it hangs on. */
  volumeId: string
  host: string | null
  status: string
  /** Why the last work on it failed. */
  reason: string | null
  createdAt: string
  updatedAt: string | null
  /** Work on it that goes on or waits. */
  work: WorkStory | null
  /** Other work on the same volume. One unit goes after the other, but for backups that are made or deleted. */
  workBeside: (WorkStory & { resourceId: string })[]
  /** Of a volume. */
  attachments: { id: string; status: string; instanceId: string | null; host: string | null; reason: string | null }[]
  snapshots: { id: string; name: string | null; status: string }[]
  /** Newest first. */
  messages: Message[]
}

export interface WorkStory {
  kind: string
  step: string
  attempt: number
  lastError: string | null
  /** Milliseconds since 1970. */
  dueAtMs: number
  deadlineAtMs: number
  owner: string
}

const MESSAGES_SHOWN = 10

export function createInspection(db: Db): Inspection {
  return {
    explain: (resourceId) => explain(db, resourceId),
    listVolumes: async ({ after, limit, status, projectId }) => {
      const filters: Filters = status === null ? {} : { status }
      const sort = [{ key: 'created_at', direction: 'asc' as const }]
      const listing = { projectId, limit, offset: 0, marker: after, sort, filters }
      return (await volumes.list(db, listing, { count: false })).rows
    },
  }
}

async function explain(db: Db, resourceId: string): Promise<Explanation | null> {
  const found = await find(db, resourceId)
  if (found === null) return null
  const units = await workRows.ofVolume(db, found.volumeId)
  const own = units.find((unit) => unit.resource_id === resourceId)
  const isVolume = found.kind === 'volume'
  return {
    ...found,
    work: own === undefined ? null : toStory(own),
    workBeside: units
      .filter((unit) => unit !== own)
      .map((unit) => ({ resourceId: unit.resource_id, ...toStory(unit) })),
    attachments: isVolume
      ? (await attachments.ofVolume(db, resourceId)).map((row) => ({
          id: row.id,
          status: row.status,
          instanceId: row.instance_id,
          host: row.attached_host,
          reason: row.status_reason,
        }))
      : [],
    snapshots: isVolume
      ? (await snapshots.ofVolume(db, resourceId)).map(({ id, name, status }) => ({ id, name, status }))
      : [],
    messages: (await messages.ofResource(db, resourceId, MESSAGES_SHOWN)).map(toMessage),
  }
}

type Found = Omit<Explanation, 'work' | 'workBeside' | 'attachments' | 'snapshots' | 'messages'>

async function find(db: Db, id: string): Promise<Found | null> {
  const volume = await volumes.find(db, id)
  if (volume !== undefined) {
    const { name, size_gib: sizeGib, host } = volume
    return { ...common(volume), kind: 'volume', volumeId: id, name, sizeGib, host }
  }
  const snapshot = await snapshots.find(db, id)
  if (snapshot !== undefined) {
    const { name, size_gib: sizeGib, volume_id: volumeId } = snapshot
    return { ...common(snapshot), kind: 'snapshot', volumeId, name, sizeGib, host: null }
  }
  const attachment = await attachments.find(db, id)
  if (attachment === undefined) return null
  const { volume_id: volumeId, attached_host: host } = attachment
  return { ...common(attachment), kind: 'attachment', volumeId, name: null, sizeGib: null, host }
}

function common(row: volumes.VolumeRow | snapshots.SnapshotRow | attachments.AttachmentRow) {
  return {
    id: row.id,
    projectId: row.project_id,
    status: row.status,
    reason: row.status_reason,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  }
}

function toStory(unit: workRows.WorkRow): WorkStory {
  return {
    kind: unit.kind,
    step: unit.next_step,
    attempt: unit.attempt,
    lastError: unit.last_error,
    dueAtMs: unit.due_at_ms,
    deadlineAtMs: unit.deadline_at_ms,
    owner: unit.owner,
  }
}
