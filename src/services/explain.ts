import * as attachments from '../db/attachments.ts'
import type { Db } from '../db/database.ts'
import * as groupSnapshots from '../db/group-snapshots.ts'
import * as groups from '../db/groups.ts'
import type { Filters } from '../db/listing.ts'
import * as messages from '../db/messages.ts'
import * as snapshots from '../db/snapshots.ts'
import * as volumes from '../db/volumes.ts'
import * as workRows from '../db/work.ts'
import { toMessage } from './messages.ts'
import type { Message } from './model.ts'

/** What operators may ask beside the API: no tenant, no policy, only reading. */
export interface Inspection {
  /** Why a volume, snapshot, attachment, group or snapshot of a group is in the state it is in. Null when there is no such thing. */
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
  kind: 'volume' | 'snapshot' | 'attachment' | 'group' | 'group snapshot'
  id: string
  name: string | null
  projectId: string
  /** Null for attachments, which have the size of their volume, and for groups. */
  sizeGib: number | null
  /** Of the volume, or of the one that it hangs on; null for groups and their snapshots. */
  volumeId: string | null
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
  snapshots: Member[]
  /** Of a group. */
  volumes: Member[]
  /** Newest first. */
  messages: Message[]
}

interface Member {
  id: string
  name: string | null
  status: string
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
  const units = await (found.volumeId === null
    ? workRows.ofLane(db, found.lane)
    : workRows.ofVolume(db, found.volumeId))
  const own = units.find((unit) => unit.resource_id === resourceId)
  const isVolume = found.kind === 'volume'
  const { lane: _, ...told } = found
  return {
    ...told,
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
    snapshots: (await snapshotsOf(db, found)).map(toMember),
    volumes: found.kind === 'group' ? (await volumes.ofGroup(db, resourceId)).map(toMember) : [],
    messages: (await messages.ofResource(db, resourceId, MESSAGES_SHOWN)).map(toMessage),
  }
}

/** With the lane that its work has. */
type Found = Omit<Explanation, 'work' | 'workBeside' | 'attachments' | 'snapshots' | 'volumes' | 'messages'> & {
  lane: string
}

async function snapshotsOf(db: Db, { kind, id }: Found): Promise<snapshots.SnapshotRow[]> {
  if (kind === 'volume') return snapshots.ofVolume(db, id)
  return kind === 'group snapshot' ? snapshots.ofGroupSnapshot(db, id) : []
}

function toMember({ id, name, status }: Member): Member {
  return { id, name, status }
}

async function find(db: Db, id: string): Promise<Found | null> {
  const volume = await volumes.find(db, id)
  if (volume !== undefined) {
    const { name, size_gib: sizeGib, host } = volume
    return { ...common(volume), kind: 'volume', volumeId: id, lane: id, name, sizeGib, host }
  }
  const snapshot = await snapshots.find(db, id)
  if (snapshot !== undefined) {
    const { name, size_gib: sizeGib, volume_id: volumeId } = snapshot
    return { ...common(snapshot), kind: 'snapshot', volumeId, lane: volumeId, name, sizeGib, host: null }
  }
  const group = await groups.find(db, id)
  if (group !== undefined) {
    const { name, host } = group
    return { ...common(group), kind: 'group', volumeId: null, lane: id, name, sizeGib: null, host }
  }
  const frozen = await groupSnapshots.find(db, id)
  if (frozen !== undefined) {
    const { name, group_id: lane } = frozen
    return { ...common(frozen), kind: 'group snapshot', volumeId: null, lane, name, sizeGib: null, host: null }
  }
  const attachment = await attachments.find(db, id)
  if (attachment === undefined) return null
  const { volume_id: volumeId, attached_host: host } = attachment
  return { ...common(attachment), kind: 'attachment', volumeId, lane: volumeId, name: null, sizeGib: null, host }
}

type Common = 'id' | 'project_id' | 'status' | 'status_reason' | 'created_at' | 'updated_at'

function common(row: Pick<volumes.VolumeRow, Common>) {
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
